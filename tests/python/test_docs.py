"""The documentation is true: its code runs word for word, and the names and defaults it gives are those of the package."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import treadle
import treadle.sklearn
from treadle.cli.main import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs").glob("*.md"))


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


# pages ------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page.read_text(encoding="utf-8"))], ids=lambda page: page.name)
def test_code_of_a_page_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for number, code in enumerate(blocks(page.read_text(encoding="utf-8")), start=1):
        exec(compile(code, f"{page.name}, block {number}", "exec"), names)


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
