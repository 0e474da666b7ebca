"""`treadle.training.History`: what is kept of a run's epochs, and its CSV file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import treadle
from treadle.training import History
from treadle.training.history import packed, unpacked


def test_history_comes_back_from_csv_to_the_last_bit(tmp_path: Path) -> None:
    history = History([{"epoch": 1, "train_loss": 0.1 + 0.2, "valid_loss": None, "lr": 1e-3}])
    history.append({"epoch": 2, "train_loss": math.pi, "valid_loss": None, "lr": 5e-324})
    history.to_csv(tmp_path / "history.csv")
    assert History.from_csv(tmp_path / "history.csv") == history
    assert (tmp_path / "history.csv").read_text().startswith("epoch,train_loss,valid_loss,lr\n1,0.30000000000000004,,0.001")


def test_history_writes_the_numbers_of_numpy(tmp_path: Path) -> None:
    history = History([{"epoch": np.int64(1), "loss": np.float64(0.5), "lr": np.float32(0.1)}])  # type: ignore[dict-item]
    history.to_csv(tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_text() == f"epoch,loss,lr\n1,0.5,{float(np.float32(0.1))}\n"
    assert History.from_csv(tmp_path / "history.csv") == history


def test_history_keeps_its_columns() -> None:
    history = History([{"epoch": 1, "train_loss": 0.5}])
    with pytest.raises(ValueError, match=r"history: expected columns \['epoch', 'train_loss'\], got \['epoch'\]"):
        history.append({"epoch": 2})
    with pytest.raises(KeyError, match=r"history: expected one of .*, got 'valid_loss'"):
        history["valid_loss"]
    assert len(history) == 1
    assert "last: epoch 1, train_loss 0.5" in repr(history)


@pytest.mark.parametrize(
    ("text", "message"),
    [("epoch,lr\n1\n", "expected 2 cells in line 2, got 1"), ("epoch\nx\n", "expected a number in line 2, got 'x'")],
)
def test_a_damaged_history_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        History.from_csv(tmp_path / "history.csv")


def test_history_takes_numbers_alone() -> None:
    history = History([{"epoch": np.True_, "loss": treadle.tensor(0.5), "lr": np.array(2)}])  # type: ignore[dict-item]
    assert [type(value) for value in history.rows[0].values()] == [int, float, int]
    assert history.rows == [{"epoch": 1, "loss": 0.5, "lr": 2}]
    for value, got in ((treadle.ones(2), "Tensor"), ("0.5", "str"), (np.ones(1), "ndarray")):
        with pytest.raises(TypeError, match=f"history: expected a number or None as 'loss', got a {got}"):
            history.append({"epoch": 2, "loss": value, "lr": 1})  # type: ignore[dict-item]
    assert len(history) == 1


def test_a_packed_history_comes_back_to_the_last_bit_and_type() -> None:
    history = History(
        [
            {"epoch": 2**53 + 1, "a": 0.1 + 0.2, "b": None, "c": -0.0, "d": 3},
            {"epoch": 2, "a": math.nan, "b": None, "c": None, "d": None},
        ]
    )
    back = unpacked({name: [treadle.tensor(part) for part in parts] for name, parts in packed(history).items()})
    assert list(map(repr, back)) == list(map(repr, history))
    assert unpacked(packed(History())) == History()
