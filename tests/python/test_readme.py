"""Examples of the README and the guides run word for word, and what they say of the package is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import treadle
from treadle import nn, optim

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FROM_PYTORCH = (ROOT / "docs" / "from_pytorch.md").read_text(encoding="utf-8")
GUIDES = ["docs/from_pytorch.md", "docs/from_sklearn.md", "docs/numpy.md"]


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


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


def test_commands_it_shows_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    from treadle.cli.main import main

    for command in re.findall(r"^treadle (\w+)", README, re.MULTILINE):
        assert main([command, "--help"]) == 0
        assert f"treadle {command}" in capsys.readouterr().out


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_runs_from_top_to_bottom(guide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found, namespace = blocks((ROOT / guide).read_text(encoding="utf-8")), {}
    assert found
    for code in found:
        exec(compile(code, guide, "exec"), namespace)


@pytest.mark.parametrize("guide", GUIDES)
def test_names_in_a_guide_exist(guide: str) -> None:
    names = re.findall(r"`((?:treadle|nn|optim|models)\.[\w.]+)", (ROOT / guide).read_text(encoding="utf-8"))
    for name in names:
        value: object = treadle
        for part in name.removeprefix("treadle.").split("."):
            value = getattr(value, part)
    assert names


def rows(second: str) -> list[str]:
    """Names of PyTorch in the rows of the tables whose second column begins so."""
    cells = [line.split(" | ") for line in FROM_PYTORCH.splitlines() if line.startswith("| ")]
    return [name for row in cells if row[1].startswith(second) for name in re.findall(r"torch\.((?:nn|optim)\.\w+)`", row[0])]


def test_what_the_guide_calls_the_same_or_absent_is() -> None:
    def has(name: str) -> bool:
        package, _, member = name.partition(".")
        return hasattr({"nn": nn, "optim": optim}[package], member)

    same, absent = rows("the same names"), rows("–")
    assert len(same) > 30
    assert all(has(name) for name in same)
    assert absent
    assert not any(has(name) for name in absent)


def test_the_guide_speaks_of_every_layer_and_optimizer() -> None:
    for package in (nn, optim):
        for name in package.__all__:
            assert re.search(rf"\b{name}\b", FROM_PYTORCH), name
