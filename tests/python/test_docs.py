"""The documentation is true: its code runs word for word, and the names and defaults it gives are those of the package."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import treadle
import treadle.sklearn
from treadle import nn, optim
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


def test_what_adding_an_op_names_is_where_it_says() -> None:
    page = " ".join((ROOT / "docs" / "adding_an_op.md").read_text(encoding="utf-8").split())
    named = re.findall(r"`([\w!]+)`(?: block)? (?:of|in) `([\w/]+\.rs|[\w/]+\.py)`", page)
    assert len(named) == 5
    for name, path in named:
        assert re.search(rf"\b{name.rstrip('!')}\b", (ROOT / path).read_text(encoding="utf-8")), name


# reference --------------------------------------------------------------------

PACKAGES = (treadle, *(getattr(treadle, name) for name in sorted(treadle._SUBPACKAGES)), nn.functional, nn.utils)


def resolve(path: str) -> Any:
    """What a directive of the reference names: a module, or a class in one."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def directives() -> Iterator[tuple[str, Any, list[str], str]]:
    """Of each directive of the reference: the path it names, what that is, the names of it that are listed, its options."""
    for page in sorted((ROOT / "docs" / "api").glob("*.md")):
        for path, options in re.findall(r"^::: (\S+)\n((?: {4}.*\n)*)", page.read_text(encoding="utf-8"), re.MULTILINE):
            target, listed = resolve(path), re.search(r" members: \[(.*)\]", options)
            yield path, target, [] if inspect.isclass(target) else listed[1].split(", ") if listed else target.__all__, options


def referred() -> dict[int, str]:
    """The objects that directives of the reference show, by identity."""
    found = {}
    for path, target, names, _ in directives():
        found[id(target)] = path
        for name in names:
            found[id(getattr(target, name))] = f"{path}.{name}"
    return found


def test_the_reference_names_what_a_reader_can_import() -> None:
    for path, target, names, _ in directives():
        assert "._" not in path
        if target in PACKAGES:
            assert set(names) <= set(target.__all__), path


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_public_name_is_in_the_reference_and_has_a_text(package: ModuleType) -> None:
    prose = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    shown = referred()
    for name in package.__all__:
        value, full = getattr(package, name), f"{package.__name__}.{name}"
        if inspect.ismodule(value):
            assert value in PACKAGES or f"`{full}`" in prose, full
        elif callable(value):
            assert id(value) in shown, full
            assert inspect.getdoc(value), full
        else:
            assert f"`{full}`" in prose or id(value) in shown, full


@pytest.mark.parametrize("name", [name for name in dir(treadle.Tensor) if not name.startswith("_")])
def test_everything_of_a_tensor_has_a_text(name: str) -> None:
    assert getattr(treadle.Tensor, name).__doc__


def test_functions_have_the_arguments_that_the_reference_says() -> None:
    page = (ROOT / "docs" / "api" / "ops.md").read_text(encoding="utf-8")
    x = treadle.randn(2, 3, 4)
    for name in sorted({*treadle.ops.__all__} & {*dir(treadle.Tensor)}):
        method, function = (
            [*inspect.signature(getattr(owner, name)).parameters.values()][1:] for owner in (treadle.Tensor, treadle.ops)
        )
        assert method == function or f"`{name}`" in page, name
        for parameter in method:
            if parameter.default is Ellipsis:
                assert getattr(x, name)().tolist() == getattr(x, name)(**{parameter.name: -1}).tolist(), name


@pytest.fixture(scope="module")
def read() -> Any:
    """The package as the site's reader of sources sees it."""
    griffe = pytest.importorskip("griffe", reason="it comes with requirements-dev.txt")
    loaded = griffe.load(
        "treadle",
        search_paths=[ROOT / "python"],
        extensions=griffe.load_extensions(ROOT / "docs" / "docstrings.py"),
        docstring_parser=griffe.Parser.google,
        allow_inspection=False,
        resolve_aliases=True,
    )
    return lambda path: loaded[path.removeprefix("treadle.")]


def told(read: Any) -> dict[type, set[str]]:
    """The members of classes that the reference has a text of."""
    found: dict[type, set[str]] = {}
    for path, target, names, options in directives():
        taken = re.search(r" inherited_members: (?:true|\[(.*)\])", options)
        for name, kind in {path: target, **{f"{path}.{name}": getattr(target, name) for name in names}}.items():
            if inspect.isclass(kind):
                inherited = read(name).inherited_members if taken else {}
                chosen = taken[1].split(", ") if taken and taken[1] else inherited
                members = {**{m: inherited[m] for m in chosen if m in inherited}, **read(name).members}
                found[kind] = {m for m, member in members.items() if member.has_docstring}
    return found


def test_the_reference_tells_what_its_classes_have(read: Any) -> None:
    shown, missing = told(read), set[str]()
    for kind in shown:
        known, ours = set[str](), set[str]()
        for base in kind.__mro__:
            if base in shown:  # a text names an attribute in `…`, or under "Attributes:"
                known |= shown[base] | set(re.findall(r"(?<=`)\w+(?=`)|(?<=^ {8})\w+(?=:)", base.__doc__ or "", re.MULTILINE))
            if base.__module__.startswith("treadle"):
                ours |= {name for name in vars(base) if not name.startswith("_") and not name.endswith("_request")}  # sklearn's
        missing |= {f"{kind.__name__}.{name}" for name in ours - known}
    assert sorted(missing) == []


def test_the_reference_tells_what_optimizers_keep(read: Any) -> None:
    kept = vars(optim.SGD([nn.Parameter([1.0])]))
    members = read("treadle.optim.Optimizer").members
    assert [name for name in kept if not members[name].has_docstring] == []


@pytest.mark.parametrize("name", treadle.sklearn.__all__)
def test_the_reference_of_an_estimator_has_its_defaults_and_types(name: str, read: Any) -> None:
    estimator, found = getattr(treadle.sklearn, name), read(f"treadle.sklearn.{name}")
    (told,) = [section.value for section in found.docstring.parsed if section.kind.value == "parameters"]
    defaults = {p.name: p.default for p in inspect.signature(estimator).parameters.values()}
    assert {p.name: inspect.Parameter.empty if p.default is None else ast.literal_eval(p.default) for p in told} == defaults
    types = dict(re.findall(r"^ {4}(\w+) : (.*?)(?:, default=.*)?$", estimator.__doc__, re.MULTILINE))
    for p in told:
        assert set(re.findall(r"\w+", types[p.name])) <= set(re.findall(r"\w+", str(p.annotation))), p.name
    for method, function in found.all_members.items():
        if function.is_function and not method.startswith("_"):
            assert "parameters" in [section.kind.value for section in function.docstring.parsed], method


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
