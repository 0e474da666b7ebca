"""What the guides for those who come from elsewhere say of the package is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import treadle
from treadle import nn, optim

ROOT = Path(__file__).parents[2]
FROM_PYTORCH = (ROOT / "docs" / "from_pytorch.md").read_text(encoding="utf-8")
GUIDES = ["docs/from_pytorch.md", "docs/from_sklearn.md", "docs/numpy.md"]


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
