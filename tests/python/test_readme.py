"""The README's example runs word for word, and what it says of the package is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import treadle

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
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
