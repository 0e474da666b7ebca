"""The documentation is true: its code runs word for word, and the names and defaults it gives are those of the package."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import treadle
import treadle.sklearn
from treadle import nn
from treadle.cli.main import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def blocks(text: str, language: str = "python") -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [code for kind, code in found if kind == language]


TEXTS = [README, *(page.read_text(encoding="utf-8") for page in PAGES)]
COMMANDS = re.findall(r"^treadle \w.*$", "".join(code for text in TEXTS for code in blocks(text, "")), re.MULTILINE)


# README -----------------------------------------------------------------------


def test_the_example_runs_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks(README)
    assert len(code.strip().splitlines()) <= 12
    treadle.manual_seed(0)
    exec(compile(code, "README.md", "exec"), {})
    losses = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 10
    assert losses[-1] < losses[0] / 3


def test_modules_it_names_exist() -> None:
    for name in re.findall(r"`treadle\.(\w+)`", README):
        assert getattr(treadle, name) is not None, name


OUTSIDE = [ROOT / path for path in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")]


@pytest.mark.parametrize("page", [*OUTSIDE, *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere_in_the_repository(page: Path) -> None:
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#]+)", prose):
        assert target.startswith("https://") or (page.parent / target).exists(), target


# pages ------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page.read_text(encoding="utf-8"))], ids=lambda page: page.name)
def test_code_of_a_page_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for number, code in enumerate(blocks(page.read_text(encoding="utf-8")), start=1):
        exec(compile(code, f"{page.name}, block {number}", "exec"), names)


# reference --------------------------------------------------------------------

PACKAGES = (treadle, *(getattr(treadle, name) for name in sorted(treadle._SUBPACKAGES)), nn.functional, nn.utils)


def resolve(path: str) -> Any:
    """What a directive of the reference names: a module, or a class in one."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def referred() -> dict[int, str]:
    """The objects that directives of the reference show, by identity."""
    found = {}
    for page in (ROOT / "docs" / "api").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for path, options in re.findall(r"^::: (\S+)\n((?: {4}.*\n)*)", text, re.MULTILINE):
            target = resolve(path)
            found[id(target)] = path
            listed = re.search(r"members: \[(.*)\]", options)
            for name in [] if inspect.isclass(target) else listed[1].split(", ") if listed else target.__all__:
                found[id(getattr(target, name))] = f"{path}.{name}"
    return found


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_public_name_is_in_the_reference_and_has_a_text(package: ModuleType) -> None:
    prose = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    shown = referred()
    for name in package.__all__:
        value, full = getattr(package, name), f"{package.__name__}.{name}"
        if inspect.ismodule(value):
            assert value in PACKAGES or id(value) in shown, full
        elif callable(value):
            assert id(value) in shown, full
            assert inspect.getdoc(value), full
        else:
            assert f"`{full}`" in prose or id(value) in shown, full


@pytest.mark.parametrize("name", [name for name in dir(treadle.Tensor) if not name.startswith("_")])
def test_everything_of_a_tensor_has_a_text(name: str) -> None:
    assert getattr(treadle.Tensor, name).__doc__


# commands and tables ------------------------------------------------------------


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_known(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, command, *words = line.partition("#")[0].split()
    assert main([command, "--help"]) == 0
    known = capsys.readouterr().out
    for word in words:
        assert not word.startswith("--") or word in known


def test_the_table_of_estimators_has_all_parameters_and_their_defaults() -> None:
    text = (ROOT / "docs" / "estimators.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\S+|`\(100,\)`) \| (\w+) \|", text, re.MULTILINE)
    for name in treadle.sklearn.__all__:
        told = {row[0]: row[1].strip("`") for row in rows if row[2] == "all" or row[2] in name}
        parameters = inspect.signature(getattr(treadle.sklearn, name)).parameters.values()
        assert told == {p.name: "–" if p.default is p.empty else repr(p.default) for p in parameters}, name
