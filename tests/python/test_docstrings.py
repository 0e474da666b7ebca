"""Examples of docstrings run, and give what they show; those that need a model, data or a file of the reader's are left out."""

from __future__ import annotations

import ast
import builtins
import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
import treadle.data
import treadle.training
from treadle import init, models, nn, optim

# What a reader has imported beside the names of the module at hand.
IMPORTED = {"treadle": treadle, "np": np, "init": init, "models": models, "nn": nn, "optim": optim}
IMPORTED |= {name: getattr(package, name) for package in (treadle.data, treadle.training) for name in package.__all__}
A_FILE = re.compile(r'"\S+\.(csv|gz|safetensors)"')


def free(test: doctest.DocTest) -> set[str]:
    """The names that an example takes for granted."""
    known, used = set(test.globs) | set(dir(builtins)), set[str]()
    for node in ast.walk(ast.parse("".join(example.source for example in test.examples))):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else known).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            known.add(node.name)
        elif isinstance(node, ast.arg):
            known.add(node.arg)
        elif isinstance(node, ast.alias):
            known.add(node.asname or node.name)
    return used - known


def examples() -> list[doctest.DocTest]:
    """Those that run by themselves; the command line's, which train for seconds, have tests of their own."""
    names = [module.name for module in pkgutil.walk_packages(treadle.__path__, "treadle.")]
    modules = [importlib.import_module(name) for name in names if not name.startswith(("treadle._", "treadle.cli"))]
    found = [test for module in (treadle, *modules) for test in doctest.DocTestFinder().find(module, extraglobs=IMPORTED)]
    return [test for test in found if test.examples and not free(test) and not A_FILE.search(test.docstring)]


class Checker(doctest.OutputChecker):
    """An example that shows no result may have one."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


EXAMPLES = examples()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_gives_what_it_shows(example: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    before: Any = treadle.is_grad_enabled(), treadle.get_num_threads()
    try:
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        result = doctest.DocTestRunner(Checker(), optionflags=flags).run(example, out=told.append, clear_globs=False)
    finally:
        treadle.set_grad_enabled(before[0])
        treadle.set_num_threads(before[1])
    assert result.failed == 0, "".join(told)


def test_examples_were_found() -> None:
    assert len(EXAMPLES) >= 45
