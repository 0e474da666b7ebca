"""What `fit`, `evaluate` and measures refuse, with one error that says what to do, before anything changes."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn, optim
from treadle.data import DataLoader, TensorDataset
from treadle.training import Accuracy, EarlyStopping, accuracy, confusion_matrix, evaluate, fit, predict

X, Y = treadle.tensor(np.ones((12, 4), np.float32)), treadle.tensor(np.arange(12) % 3)
BATCHES = DataLoader(TensorDataset(X, Y), 4)
MAKE = "make them with DataLoader(TensorDataset(x, y), 64)"
RENAME = "other than 'loss', which the loss has, got ['accuracy', 'loss']; rename it"


class Setting:
    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).eval()
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1)
        self.before = self.bits()

    def bits(self) -> list[bytes]:
        return [tensor.numpy().tobytes() for tensor in self.model.state_dict().values()]

    def fit(self, data: Any = BATCHES, **options: Any) -> Any:
        options = {"loss": nn.CrossEntropyLoss(), "optimizer": self.optimizer, "epochs": 1, "progress": False} | options
        return fit(options.pop("model", self.model), data, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metrics": {"loss": Accuracy(), "accuracy": Accuracy()}}, ValueError, RENAME),
        ({"metrics": {"a": Accuracy}}, TypeError, "a measure as metric 'a', got the class Accuracy; make one of it"),
        ({"metrics": {"a": accuracy}}, TypeError, "a measure as metric 'a', got a function; write a class with reset, update"),
        ({"metrics": [Accuracy()]}, TypeError, "metrics as a dict, got list; give them names, as {'accuracy': Accuracy()}"),
        ({"data": (X, Y)}, ValueError, f"batches (inputs, targets), got a Tensor as a batch; {MAKE}"),
        ({"data": X}, ValueError, f"batches (inputs, targets), got a Tensor; {MAKE}"),
        ({"data": TensorDataset(X, Y)}, ValueError, f"batches (inputs, targets), got a TensorDataset; {MAKE}"),
        ({"data": [{"x": X}]}, ValueError, f"batches (inputs, targets), got a dict as a batch; {MAKE}"),
        ({"data": [(X, Y, Y)]}, ValueError, "got a batch of 3; several inputs, or targets, go into one tuple"),
        ({"data": DataLoader(TensorDataset(X), 4)}, ValueError, "got a batch of 1; give targets too"),
        ({"loss": nn.CrossEntropyLoss}, TypeError, "a loss, got the class CrossEntropyLoss; make one of it"),
        ({"loss": "mse"}, TypeError, "a loss that can be called, got a str; give a function of outputs and targets, or a loss mod"),
        ({"data": []}, ValueError, "at least 1 batch, got none"),
        ({"loss": nn.CrossEntropyLoss(reduction="none")}, ValueError, "got reduction 'none'; use 'mean'"),
    ],
    ids=lambda value: None if isinstance(value, dict) else "",
)
def test_what_is_no_batch_loss_or_metric_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    setting = Setting()
    with pytest.raises(error, match="^fit: expected .*" + re.escape(message)):
        setting.fit(**options)
    if "data" not in options:
        assert not setting.model.training
    assert setting.bits() == setting.before
    measured = {"model": setting.model, "data": BATCHES, "loss": nn.CrossEntropyLoss()} | options
    with pytest.raises(error, match="^evaluate: expected .*" + re.escape(message)):
        evaluate(**measured)


@pytest.mark.parametrize(
    ("made", "got"),
    [
        (lambda x, y: (x - 1).sum(1), r"shape \(4,\)"),
        (lambda x, y: 1.0, "a float"),
        (lambda x, y: np.float32(1.0), "a float32"),
    ],
)
def test_a_loss_of_many_numbers_takes_no_step(made: Any, got: str) -> None:
    setting = Setting()
    weights = [p.numpy().copy() for p in setting.model.parameters()]
    with pytest.raises(ValueError, match=f"fit: expected a loss that is a Tensor of one number, got {got}; average over"):
        setting.fit(loss=made)
    assert all(np.array_equal(a, p.numpy()) for a, p in zip(weights, setting.model.parameters(), strict=True))
    with pytest.raises(ValueError, match=f"evaluate: expected a loss that is a Tensor of one number, got {got}"):
        evaluate(setting.model, BATCHES, loss=made)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"early_stopping": EarlyStopping("val_loss")}, ValueError, "a value of 'val_loss', got only ['epoch', 'train_loss', "),
        ({"early_stopping": EarlyStopping()}, ValueError, "a value of 'valid_loss', got only ['epoch', 'train_loss', 'train_acc"),
        (
            {"early_stopping": EarlyStopping("train_accuracy"), "metrics": {}},
            ValueError,
            "a value of 'train_accuracy', got only ['epoch', 'train_loss']",
        ),
        ({"callbacks": print}, TypeError, "callbacks as a list of functions, got a builtin_function_or_method; put it into a list"),
        ({"callbacks": None}, TypeError, "callbacks as a list of functions, got a NoneType; put it into a list"),
        ({"callbacks": [print, "x"]}, TypeError, "callbacks that can be called, got a str; give functions"),
    ],
)
def test_what_an_epoch_would_end_with_is_looked_at_before_it(options: dict[str, Any], error: type[Exception], message: str) -> None:
    setting = Setting()
    with pytest.raises(error, match=re.escape(f"expected {message}")):
        setting.fit(**options)
    assert setting.bits() == setting.before


def superseded(optimizer: optim.Optimizer) -> optim.LRScheduler:
    """A schedule that another took over from."""
    first = optim.StepLR(optimizer, 1)
    optim.StepLR(optimizer, 1)
    return first


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda _: {"loss": None}, TypeError, "a loss that can be called, got a NoneType"),
        (lambda _: {"optimizer": None}, TypeError, "optimizer as Optimizer, got a NoneType"),
        (lambda _: {"optimizer": optim.SGD}, TypeError, "optimizer as Optimizer, got the class SGD; make one of it"),
        (lambda _: {"early_stopping": "x"}, TypeError, "early_stopping as EarlyStopping, got a str"),
        (lambda _: {"scheduler": "x"}, TypeError, "scheduler as LRScheduler or ReduceLROnPlateau, got a str"),
        (lambda _: {"scheduler": optim.StepLR(Setting().optimizer, 1)}, ValueError, "a scheduler of the optimizer, got one of an"),
        (
            lambda setting: {"scheduler": superseded(setting.optimizer)},
            RuntimeError,
            "one schedule for an optimizer, got a step of StepLR after another was made",
        ),
        (lambda _: {"clip_norm": -1}, ValueError, "clip_norm as a number of at least 0, got -1"),
        (lambda _: {"clip_norm": float("nan")}, ValueError, "clip_norm as a number of at least 0, got nan"),
        (lambda _: {"clip_norm": "a"}, ValueError, "clip_norm as a number of at least 0, got 'a'"),
        (lambda _: {"data": DataLoader(TensorDataset(X, Y), 64, drop_last=True)}, ValueError, "at least 1 batch, got none"),
        (lambda _: {"valid": []}, ValueError, "at least 1 batch, got none"),
        (
            lambda _: {"data": zip([X], [Y], strict=True), "epochs": 2},
            ValueError,
            "batches to go through 2 times, got a zip, which is used up",
        ),
        (lambda _: {"valid": iter([(X, Y)]), "epochs": 3}, ValueError, "batches to go through 3 times, got a list_iterator, which"),
        (lambda _: {"callbacks": [lambda history: None]}, TypeError, "callbacks that take a history and a model, got "),
        (lambda _: {"model": lambda x: x}, TypeError, "model as Module, got a function"),
    ],
)
def test_a_wrong_argument_leaves_the_earlier_checkpoint(make: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    setting, path = Setting(), tmp_path / "run.safetensors"
    Setting().fit(checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(error, match=re.escape(f"expected {message}")):
        setting.fit(checkpoint=path, **make(setting))
    assert path.read_bytes() == before
    assert setting.bits() == setting.before


def test_callbacks_of_a_generator_are_called_after_every_epoch() -> None:
    rows: list[int] = []
    Setting().fit(epochs=3, callbacks=(f for f in [lambda history, _: rows.append(len(history))]))
    assert rows == [1, 2, 3]


@pytest.mark.parametrize("nest", [lambda a, b: (a, b), lambda a, b: {"a": a, "b": [b]}, lambda a, b: ({"a": a}, b)])
def test_rows_of_several_targets_are_counted(nest: Any) -> None:
    def loss(outputs: Any, targets: Any) -> Any:
        while not isinstance(targets, treadle.Tensor):
            targets = targets["a"] if isinstance(targets, dict) else targets[0]
        return targets.astype("float32").mean() + outputs.mean() * 0.0

    setting = Setting()
    batches = [(x, nest(y, y[:, None])) for x, y in DataLoader(TensorDataset(X, Y), 7)]
    assert {len(x) for x, _ in batches} == {7, 5}
    assert setting.fit(batches, loss=loss)["train_loss"] == [pytest.approx(1.0)]
    assert evaluate(setting.model, batches, loss=loss) == {"loss": pytest.approx(1.0)}


def test_an_optimizer_of_other_parameters_is_refused(tmp_path: Path) -> None:
    setting = Setting()
    setting.model.double()
    with pytest.raises(ValueError, match=r"fit: expected an optimizer of the model's parameters, got .* after astype\(\)"):
        setting.fit(checkpoint=tmp_path / "run.safetensors")
    assert not list(tmp_path.iterdir())


def test_parameters_that_nobody_trains_are_named() -> None:
    setting = Setting()
    head = setting.model[2]
    with pytest.warns(RuntimeWarning, match=r"fit: the optimizer does not train '0.weight', '0.bias', '1.weight' and 1 more; "):
        setting.fit(optimizer=optim.SGD(head.parameters(), lr=0.1))
    setting.model[0].requires_grad_(False)
    setting.model[1].requires_grad_(False)
    scale = nn.Parameter(treadle.ones(1))

    def scaled(outputs: Any, targets: Any) -> Any:
        return nn.functional.cross_entropy(outputs * scale, targets)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        setting.fit(optimizer=optim.SGD(head.parameters(), lr=0.1))  # fine-tuning: the rest is frozen
        setting.fit(optimizer=optim.SGD(setting.model.parameters(), lr=0.1))
        setting.fit(loss=scaled, optimizer=optim.SGD([*head.parameters(), scale], lr=0.1))
        setting.model.requires_grad_(False)
        setting.fit(loss=scaled, optimizer=optim.SGD([scale], lr=0.1))  # of the loss alone
    assert scale.numpy() != 1.0


@pytest.mark.parametrize(("outputs", "targets"), [(["a", "b"], ["a", "a"]), ([0, 1], ["a", "b"]), ([None, 1], [0, 1])])
def test_confusion_matrix_of_names_says_how_to_number_them(outputs: Any, targets: Any) -> None:
    with pytest.raises(TypeError, match=r"confusion_matrix: expected numbers of classes, got (<U1|object); number them by"):
        confusion_matrix(outputs, targets)


@pytest.mark.parametrize(
    ("output", "got"), [(lambda x: (x, x), "a tuple"), (lambda x: x.sum(), r"shape \(\)"), (lambda x: x.numpy(), "a ndarray")]
)
def test_predict_says_what_a_model_has_to_give(output: Any, got: str) -> None:
    class Model(nn.Module):
        def forward(self, x: Any) -> Any:
            return output(x)

    with pytest.raises(
        ValueError, match=f"predict: expected a model whose output is a Tensor with a row for each input, got {got}"
    ):
        predict(Model(), X)
