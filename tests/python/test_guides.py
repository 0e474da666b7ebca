"""What the guides for those who come from elsewhere say of the package is there."""

from __future__ import annotations

import re
from contextlib import suppress
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


def section(title: str) -> list[tuple[list[str], list[str]]]:
    """The code in both columns of the table under a heading, row by row."""
    text = FROM_PYTORCH.partition(f"## {title}\n")[2].partition("\n## ")[0]
    cells = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return [(re.findall(r"`([^`]+)`", left), re.findall(r"`([^`]+)`", right)) for left, right in cells]


def test_what_to_write_instead_runs_and_what_it_stands_for_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for code in re.findall(r"^```python\n(.*?)^```", FROM_PYTORCH.partition("## Writing into")[0], re.DOTALL | re.MULTILINE):
        exec(code, names)
    names |= {"torch": treadle, "F": nn.functional}
    table = section("What to write instead")
    assert len(table) > 30
    for theirs, ours in table:
        for code in theirs:
            with pytest.raises((AttributeError, TypeError, ValueError)):
                exec(code, dict(names))
        for code in ours:
            exec(code, dict(names))


@pytest.mark.parametrize(("lost", "written"), section("Writing into tensors"))
def test_a_write_reaches_a_parameter_as_the_guide_says(lost: list[str], written: list[str]) -> None:
    def state(code: str) -> list[list[list[float]]]:
        p = nn.Parameter(treadle.ones(2, 3))
        p.grad = treadle.ones(2, 3)
        names = {"p": p, "value": treadle.zeros(2, 3), "row": treadle.zeros(3), "rate": 0.1, "treadle": treadle}
        with treadle.no_grad(), suppress(RuntimeError, TypeError, ValueError):
            exec(code, names)
        return [p.tolist(), p.grad.tolist()]

    assert all(state(code) == state("") for code in lost)
    assert all(state(code) != state("") for code in written if code != "treadle.no_grad()")


def test_the_guide_speaks_of_every_layer_and_optimizer() -> None:
    for package in (nn, optim):
        for name in package.__all__:
            assert re.search(rf"\b{name}\b", FROM_PYTORCH), name
