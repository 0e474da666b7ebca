"""The examples run in their short form and do what they say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_list_is_complete() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f"| `{path.name}` |" in text


def test_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load("digits").run(["--quick", "--out", str(tmp_path)]) == 0
    assert float(capsys.readouterr().out.split()[-1].rstrip("%")) > 97


def test_tabular_csv_on_the_file_it_writes() -> None:
    assert load("tabular_csv").main(["--quick"]) > 0.93


def test_tabular_csv_on_another_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{n % 7},{'red' if n % 2 else 'blue'},{'odd' if n % 2 else 'even'}" for n in range(200)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["number,colour,kind", *lines]))
    tabular = load("tabular_csv")
    assert tabular.main(["--quick", "--data", str(path), "--target", "kind"]) == 1.0
    assert "even taken for even" in capsys.readouterr().out
    path.write_text("\n".join(["x,y", *(f"{n},{n / 7}" for n in range(50))]))
    with pytest.raises(SystemExit, match="expected classes in column 'y', got numbers to predict"):
        tabular.main(["--data", str(path), "--target", "y"])


def test_regression_uncertainty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = load("regression_uncertainty").main(["--quick", "--out", str(tmp_path / "picture.png")])
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    single, several = (found[f"{name}, elsewhere"] for name in ("one network", "ensemble of five"))
    assert several[1] < single[1]
    assert several[2] > 0.9
    assert 0.9 < found["ensemble of five, where there were data"][2] <= 1
    head, *rows, _ = capsys.readouterr().out.splitlines()
    ends = head.index("RMSE") + len("RMSE"), head.index("NLL") + len("NLL"), len(head)
    assert all([cell.end() for cell in re.finditer(r"\d\.\d{3}", row)] == list(ends) for row in rows)


def test_ppo_cartpole() -> None:
    found = load("ppo_cartpole").main(["--quick"])
    assert found["steps"] >= 10_000
    assert found["return"] > 60  # a policy that knows nothing gets 22


def test_online_learning() -> None:
    right = load("online_learning").main(["--quick"])
    assert right["partial_fit"][-50:].mean() > 0.85
    assert right["fitted once"][-50:].mean() < 0.4


def test_custom_layer() -> None:
    example = load("custom_layer")
    assert example.largest_gradient_error() < 1e-7
    assert min(example.main(["--quick"]).values()) > 0.9
