"""`treadle.training`: histories, checkpoints, and runs that can be interrupted."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn, optim
from treadle.data import DataLoader, Subset, TensorDataset
from treadle.models import MLPResNet
from treadle.serialization import write_atomic
from treadle.training import (
    MAE,
    R2,
    EarlyStopping,
    History,
    evaluate,
    fit,
    load_checkpoint,
    predict,
    save_checkpoint,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "file", b"old")

    def fail(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_atomic(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


# checkpoints ------------------------------------------------------------------


def test_nested_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = {
        "a": {1: treadle.tensor([1.5, -0.0]), "1": treadle.tensor(7)},
        "b": [None, True, 3, 0.1, "x", (1, [2])],
        "c": {"inf": math.inf, "empty": {}, "none": []},
        "__metadata__": treadle.tensor(8),
        "__metadata__'": treadle.tensor(9),
    }
    save_checkpoint(tmp_path / "c.safetensors", state)
    back = load_checkpoint(tmp_path / "c.safetensors")
    assert back["b"] == state["b"]
    assert back["c"] == state["c"]
    assert back["a"][1].numpy().tobytes() == state["a"][1].numpy().tobytes()
    assert back["a"]["1"].item() == 7
    assert list(back["a"]) == [1, "1"]
    assert [back[name].item() for name in ("__metadata__", "__metadata__'")] == [8, 9]


def test_a_checkpoint_says_what_it_cannot_hold(tmp_path: Path) -> None:
    for state in ([1, 2], nn.Linear(2, 2)):
        with pytest.raises(TypeError, match=f"^save_checkpoint: expected a dict of state, got {type(state).__name__}$"):
            save_checkpoint(tmp_path / "c.safetensors", state)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got object in a/0"):
        save_checkpoint(tmp_path / "c.safetensors", {"a": [object()]})
    with pytest.raises(TypeError, match="expected str or int keys, got float in state"):
        save_checkpoint(tmp_path / "c.safetensors", {0.5: 1})  # type: ignore[dict-item]
    treadle.save(tmp_path / "model.safetensors", {"w": treadle.ones(2)})
    with pytest.raises(ValueError, match="expected a file of kind 'treadle checkpoint 3', got None"):
        load_checkpoint(tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.safetensors")


# fit --------------------------------------------------------------------------


def rows(n: int = 150, seed: int = 0) -> TensorDataset:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    return TensorDataset(treadle.tensor(x), treadle.tensor((x[:, 0] > x[:, 1]).astype(np.int64)))


DRAWS = treadle.Generator(9)
"""What other modules draw from."""


class Setting:
    """A small run with every source of state: dropout, shuffling, momentum, a schedule, running statistics."""

    def __init__(self, lr: float = 0.01, epochs: int = 4) -> None:
        treadle.manual_seed(3)
        self.model = MLPResNet(6, hidden_dim=8, num_blocks=1, num_classes=2, drop_prob=0.2)
        self.train = DataLoader(rows(), 16, shuffle=True, generator=treadle.Generator(5))
        self.valid = DataLoader(rows(40, 1), 20)
        self.optimizer = optim.Adam(self.model.parameters(), lr=lr)
        self.scheduler = optim.OneCycleLR(self.optimizer, max_lr=lr, total_steps=epochs * len(self.train))

    def fit(self, epochs: int, **options: Any) -> History:
        options = {"loss": nn.CrossEntropyLoss(), "scheduler": self.scheduler, "progress": False} | options
        return fit(self.model, self.train, self.valid, optimizer=self.optimizer, epochs=epochs, **options)

    def bits(self) -> bytes:
        return b"".join(tensor.numpy().tobytes() for tensor in self.model.state_dict().values())


def without_seconds(history: History) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def test_fit_learns_and_keeps_a_history() -> None:
    setting = Setting(lr=0.02, epochs=8)
    history = setting.fit(8)
    assert history.columns == [
        "epoch", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "lr", "seconds"
    ]  # fmt: skip
    assert history["epoch"] == list(range(1, 9))
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert history["valid_accuracy"][-1] >= 0.75
    assert evaluate(setting.model, setting.valid, loss=nn.CrossEntropyLoss()) == {
        "loss": history["valid_loss"][-1],
        "accuracy": history["valid_accuracy"][-1],
    }


def test_a_resumed_run_continues_bit_for_bit(tmp_path: Path) -> None:
    whole = Setting()
    history = whole.fit(4)

    path = tmp_path / "run.safetensors"
    first = Setting()
    first.fit(2, checkpoint=path)
    treadle.manual_seed(99)
    treadle.rand(10)
    second = Setting()
    treadle.rand(7)
    resumed = second.fit(4, checkpoint=path, resume=True)
    assert without_seconds(resumed) == without_seconds(history)
    assert second.bits() == whole.bits()


def test_ctrl_c_leaves_a_checkpoint_even_in_the_first_epoch(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    broken = Setting()

    def interrupt(*_: object) -> treadle.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken.fit(4, checkpoint=path, loss=interrupt)
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]
    whole = Setting()
    whole.fit(4)
    resumed = Setting()
    resumed.fit(4, checkpoint=path, resume=True)
    assert resumed.bits() == whole.bits()


def test_threads_do_not_change_the_result() -> None:
    before = treadle.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            treadle.set_num_threads(threads)
            setting = Setting()
            setting.fit(2)
            results.append(setting.bits())
        assert results[0] == results[1]
    finally:
        treadle.set_num_threads(before)


def test_rates_fall_on_a_plateau() -> None:
    setting = Setting()
    scheduler = optim.ReduceLROnPlateau(setting.optimizer, patience=0, threshold=1.0)
    rates = setting.fit(3, scheduler=scheduler)["lr"]
    np.testing.assert_allclose(np.divide(rates[1:], rates[:-1]), [1.0, 0.1])
    with pytest.raises(ValueError, match="got 'batch'"):
        setting.fit(1, scheduler=scheduler, step_scheduler="batch")


def test_early_stopping_restores_the_best_epoch(tmp_path: Path) -> None:
    setting = Setting(epochs=50)
    stop = EarlyStopping("valid_loss", patience=2)
    history = setting.fit(50, early_stopping=stop, checkpoint=tmp_path / "c.safetensors")
    assert stop.stopped or len(history) == 50
    best = min(history["valid_loss"])
    assert evaluate(setting.model, setting.valid, loss=nn.CrossEntropyLoss())["loss"] == best
    again = Setting(epochs=50)
    other = EarlyStopping("valid_loss", patience=2)
    again.fit(50, early_stopping=other, checkpoint=tmp_path / "c.safetensors", resume=True)
    assert again.bits() == setting.bits()


@pytest.mark.parametrize(
    ("monitor", "mode", "waited"),
    [
        ("valid_accuracy", None, 1),
        ("train_r2", None, 1),
        ("valid_loss", None, 2),
        ("valid_accuracy", "min", 2),
        ("valid_loss", "max", 1),
    ],
)
def test_early_stopping_takes_more_for_better_where_the_column_says_so(monitor: str, mode: Any, waited: int) -> None:
    stop = EarlyStopping(monitor, mode=mode, restore_best=False)
    for value in (0.5, 0.7, 0.6):  # the second is the best, or the first
        stop.update({monitor: value}, nn.Identity())
    assert stop.state_dict()["waited"] == waited


def test_fit_regression_with_measures_and_no_validation() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype(np.float32)
    y = (x @ np.array([[1.0], [-2.0], [0.5]], dtype=np.float32)).astype(np.float32)
    model = nn.Linear(3, 1)
    history = fit(
        model,
        DataLoader(TensorDataset(treadle.tensor(x), treadle.tensor(y)), 16, shuffle=True),
        loss=nn.MSELoss(),
        optimizer=optim.SGD(model.parameters(), lr=0.1),
        epochs=20,
        metrics={"r2": R2(), "mae": MAE()},
        progress=False,
        clip_norm=5.0,
    )
    assert history["train_r2"][-1] > 0.99
    assert history["valid_r2"] == [None] * 20
    np.testing.assert_allclose(predict(model, x, batch_size=10), x @ model.weight.numpy().T + model.bias.numpy(), atol=1e-6)


def test_a_line_per_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    history = Setting().fit(2, progress=True)
    line = "epoch {epoch}/2  loss {train_loss:.4f}  accuracy {train_accuracy:.4f}  valid loss {valid_loss:.4f}"
    lines = capsys.readouterr().err.splitlines()
    assert [text.rpartition("  accuracy")[0] for text in lines] == [line.format(**row) for row in history]


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("treadle.training.progress._INTERVAL", 0.0)
    Setting().fit(1, progress=True)
    *bars, line = capsys.readouterr().err.rstrip("\n").split("\r")
    assert any("10/10" in bar and "accuracy 0." in bar for bar in bars)
    assert line.startswith("epoch 1/1  loss ")


@pytest.mark.parametrize("closed", [False, True])
def test_nothing_is_shown_where_there_is_no_stderr(monkeypatch: pytest.MonkeyPatch, closed: bool) -> None:
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr("sys.stderr", stream if closed else None)
    assert len(Setting().fit(2, progress=True)) == 2


class Full(io.StringIO):
    """A stream on a full disk, or one whose reader has gone."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize("terminal", [False, True])
def test_a_stderr_that_cannot_be_written_to_ends_nothing(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setattr("sys.stderr", Full(terminal))
    monkeypatch.setattr("treadle.training.progress._INTERVAL", 1e-9)
    assert len(Setting().fit(2, progress=True)) == 2


def test_evaluation_restores_every_mode() -> None:
    setting = Setting()
    setting.model.train()
    frozen = next(module for module in setting.model.modules() if isinstance(module, nn.BatchNorm1d))
    frozen.eval()
    evaluate(setting.model, setting.valid)
    predict(setting.model, setting.valid)
    assert setting.model.training
    assert not frozen.training


@pytest.mark.parametrize("training", [True, False])
def test_a_mode_that_is_set_amid_an_evaluation_stays(training: bool) -> None:
    model = nn.Dropout(0.5).train(not training)

    def batches() -> Iterator[treadle.Tensor]:
        yield treadle.ones(2)
        model.train(training)

    predict(model, batches())
    assert model.training is training
    predict(model, treadle.ones(2))
    assert model.training is training


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"epochs": 0}, ValueError, "fit: expected epochs of at least 1, got 0"),
        ({"epochs": 1, "resume": True}, ValueError, "fit: expected the checkpoint to resume from, got None"),
        ({"epochs": 1, "step_scheduler": "step"}, ValueError, "fit: expected step_scheduler 'epoch', or .* got 'step'"),
        ({"epochs": 1, "resume": True, "checkpoint": "/nonexistent/c"}, FileNotFoundError, "/nonexistent/c"),
        (
            {"epochs": 1, "early_stopping": EarlyStopping("valid_r2")},
            ValueError,
            "expected a value of 'valid_r2', got only",
        ),
    ],
)
def test_bad_calls(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Setting().fit(**options)


def test_a_run_without_batches_or_with_a_loss_that_is_not_finite() -> None:
    setting = Setting()
    with pytest.raises(ValueError, match="fit: expected at least 1 batch, got none"):
        fit(setting.model, [], loss=nn.CrossEntropyLoss(), optimizer=setting.optimizer, epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"^evaluate: expected at least 1 batch, got none"):
        evaluate(setting.model, iter(()))
    with pytest.raises(ValueError, match=r"^evaluate: expected at least 1 row per batch, got an empty batch"):
        evaluate(nn.Linear(2, 2), [(treadle.ones(n, 2), treadle.zeros(n, dtype="int64")) for n in (4, 0)])
    with pytest.raises(FloatingPointError, match="fit: expected a finite loss, got nan in epoch 1"):
        setting.fit(1, loss=lambda outputs, targets: nn.CrossEntropyLoss()(outputs, targets) * math.nan)


def test_resuming_with_other_parts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    Setting().fit(1, checkpoint=path)
    with pytest.raises(ValueError, match=r"fit: expected a scheduler as in .*, got no scheduler"):
        Setting().fit(2, checkpoint=path, resume=True, scheduler=None)
    with pytest.raises(ValueError, match=r"fit: expected no stopping as in .*, got a stopping"):
        Setting().fit(2, checkpoint=path, resume=True, early_stopping=EarlyStopping())
    other, stepped, decayed = Setting(), Setting(), Setting()
    other.optimizer = optim.AdamW(other.model.parameters(), lr=0.01)
    other.scheduler = optim.OneCycleLR(other.optimizer, max_lr=0.01, total_steps=40)
    stepped.scheduler = optim.CosineAnnealingLR(stepped.optimizer, 40)  # type: ignore[assignment]
    decayed.optimizer = optim.Adam(decayed.model.parameters(), lr=0.01, weight_decay=0.1)
    decayed.scheduler = optim.OneCycleLR(decayed.optimizer, max_lr=0.01, total_steps=40)
    for setting, message in (
        (other, "optimizer Adam as in the checkpoint, got AdamW"),
        (stepped, "scheduler OneCycleLR as in the checkpoint, got CosineAnnealingLR"),
        (decayed, r"options of the optimizer \[.*'weight_decay': 0.0.* as in the checkpoint, got \[.*'weight_decay': 0.1"),
    ):
        before = setting.bits()
        with pytest.raises(ValueError, match=f"fit: expected {message}"):
            setting.fit(2, checkpoint=path, resume=True)
        assert setting.bits() == before
    setting = Setting()
    before = setting.bits()
    with pytest.raises(ValueError, match=r"fit: expected metrics None as in the checkpoint, got \['right'\]"):
        setting.fit(2, checkpoint=path, resume=True, metrics={"right": R2()})
    assert setting.bits() == before


def test_bad_early_stopping() -> None:
    for options, message in (
        ({"patience": 0}, "patience of at least 1, got 0"),
        ({"min_delta": -1.0}, "min_delta of at least 0, got -1.0"),
        ({"mode": "best"}, "mode 'min' or 'max', got 'best'"),
    ):
        with pytest.raises(ValueError, match=message):
            EarlyStopping(**options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^early_stopping: expected min_delta as a number, got str$"):
        EarlyStopping(min_delta="0.1")  # type: ignore[arg-type]


def test_predict_refuses_nothing_and_odd_sizes() -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(ValueError, match="predict: expected batch_size of at least 1, got 0"):
        predict(model, np.zeros((2, 2), np.float32), batch_size=0)
    with pytest.raises(ValueError, match="predict: expected at least 1 row, got none"):
        predict(model, np.zeros((0, 2), np.float32))
    pairs = TensorDataset(treadle.ones(3, 2), treadle.ones(3))
    for dataset in (pairs, Subset(pairs, [0])):
        with pytest.raises(
            ValueError, match=r"predict: expected batches .*, got a (TensorDataset|Subset); make them with DataLoader"
        ):
            predict(model, dataset)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"predict: expected batches .*, got a row; make them with DataLoader"):
        predict(model, [pairs[i] for i in range(3)])
    assert predict(model, [treadle.ones(3, 2), treadle.ones(1, 2)]).shape == (4, 1)
