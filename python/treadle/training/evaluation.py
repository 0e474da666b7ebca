"""A model as it is: `evaluate` and `predict`, and the meter that sums a loss and metrics over batches.

Invariant: nothing here changes the model: it is in the mode it was in before, whatever happens, and threads may do it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from treadle._core import Tensor
from treadle.autograd import no_grad
from treadle.checks import at_least
from treadle.nn import BCEWithLogitsLoss, Module
from treadle.nn.functional import binary_cross_entropy_with_logits
from treadle.nn.mode import evaluating
from treadle.training.checks import check_batches, check_loss, check_metrics, inputs_of, pair, scalar
from treadle.training.kept import Kept, put
from treadle.training.metrics import Accuracy, Metric

__all__ = ["Loss", "Meter", "evaluate", "measure", "predict"]

Loss: TypeAlias = Callable[[Any, Any], Tensor]


class Meter:
    """The mean loss per row, and metrics, over batches.

    Args:
        metrics: Names and measures, reset here; None: decided by the first batch.
        function: What the loss is computed by; it tells what one output for two classes means.
        op: What errors begin with.
    """

    def __init__(self, metrics: Mapping[str, Metric] | None, function: Loss | None, op: str = "fit") -> None:
        self._given, self._function, self._op = metrics, function, op
        self.reset()

    def reset(self) -> None:
        """Forgets every batch seen."""
        self.metrics = self._given
        self._loss: float | None = None
        self._rows = 0
        for metric in (self.metrics or {}).values():
            metric.reset()

    def update(self, loss: float | None, outputs: Any, targets: Any) -> None:
        """Takes in one batch; `loss` is its mean, or None where no loss is asked for."""
        rows = _rows(targets)
        if rows == 0:
            raise ValueError(f"{self._op}: expected at least 1 row per batch, got an empty batch")
        self._rows += rows
        if loss is not None:
            self._loss = (self._loss or 0.0) + loss * rows
        if self.metrics is None:
            self.metrics = _usual(self._function, outputs, targets)
        for metric in self.metrics.values():
            metric.update(outputs, targets)

    def compute(self) -> dict[str, float]:
        """Loss and metrics so far.

        Raises:
            ValueError: There was no batch.
            TypeError: A metric computes no number.
        """
        if not self._rows:
            raise ValueError(f"{self._op}: expected at least 1 batch, got none")
        head = {} if self._loss is None else {"loss": self._loss / self._rows}
        return head | {name: self._number(name, metric.compute()) for name, metric in (self.metrics or {}).items()}

    def _number(self, name: str, value: Any) -> float:
        try:
            return float(value)
        except (TypeError, ValueError):
            raise TypeError(f"{self._op}: expected metric {name!r} to compute a number, got {value!r}") from None

    def state_dict(self, kept: Kept) -> dict[str, Any]:
        """What was seen so far.

        Raises:
            TypeError: A metric has a state that no checkpoint can hold.
        """
        return {"loss": self._loss, "rows": self._rows, "metrics": None if self.metrics is None else kept.copy(self.metrics)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state_dict` returned.

        Raises:
            ValueError: It knows other metrics.
        """
        seen = state["metrics"] or {}
        if self.metrics is None and state["metrics"] is not None:
            self.metrics = {name: Accuracy() for name in seen}
        if set(self.metrics or {}) != set(seen):
            raise ValueError(f"fit: expected metrics {sorted(seen)} as in the checkpoint, got {sorted(self.metrics or {})}")
        for name, metric in (self.metrics or {}).items():
            put(metric, seen[name])
        self._loss, self._rows = state["loss"], state["rows"]


def _rows(targets: Any) -> int:
    """How many rows a batch has; of several targets, the first tensor or array tells."""
    first = targets
    while not isinstance(first, Tensor) and isinstance(first, Mapping | tuple | list) and first:
        first = next(iter(first.values() if isinstance(first, Mapping) else first))
    return len(first if getattr(first, "shape", ()) else targets)


def _usual(function: Loss | None, outputs: Any, targets: Any) -> dict[str, Metric]:
    """The accuracy where outputs and targets are of classes."""
    if not isinstance(targets, Tensor | np.ndarray):
        return {}
    shape = outputs.shape if isinstance(outputs, Tensor) else ()
    if isinstance(function, BCEWithLogitsLoss) or function is binary_cross_entropy_with_logits:
        return {"accuracy": Accuracy(threshold=0.0)} if len(shape) == 1 or shape[1:] == (1,) else {}
    scores = len(shape) == 2 and shape[1] > 1
    return {"accuracy": Accuracy()} if scores and targets.ndim == 1 and targets.dtype == "int64" else {}


def measure(
    op: str, model: Module, data: Iterable[Any], loss: Loss | None, metrics: Mapping[str, Metric] | None
) -> dict[str, float]:
    """`evaluate`, whose arguments were checked; errors begin with `op`."""
    meter = Meter(metrics, loss, op)
    with evaluating(model), no_grad():
        for batch in data:
            inputs, targets = pair(op, batch)
            outputs = model(inputs)
            meter.update(None if loss is None else scalar(op, loss(outputs, targets)), outputs, targets)
    return meter.compute()


def evaluate(
    model: Module, data: Iterable[Any], *, loss: Loss | None = None, metrics: Mapping[str, Metric] | None = None
) -> dict[str, float]:
    """Measures a model in evaluation mode, without recording.

    Args:
        model: The model; its mode is restored.
        data: Batches (inputs, targets), such as a `DataLoader`.
        loss: Takes outputs and targets, gives the mean over the batch.
        metrics: Names and measures; None: the accuracy when targets are class indices, or the loss is
            `BCEWithLogitsLoss` of one output. None is called "loss".

    Returns:
        `loss` if asked for, and each metric by its name.

    Raises:
        TypeError: Metrics that are no dict of measures, or a loss that is a class or cannot be called.
        ValueError: No batches, an empty one or one that is no pair; a loss that is not one number, or a metric of its name.

    Example:
        >>> evaluate(model, DataLoader(test, 512), loss=nn.CrossEntropyLoss())
        {'loss': 0.08, 'accuracy': 0.98}
    """
    check_batches("evaluate", data)
    if loss is not None:
        check_loss("evaluate", loss)
    check_metrics("evaluate", metrics)
    return measure("evaluate", model, data, loss, metrics)


def predict(model: Module, data: Tensor | npt.ArrayLike | Iterable[Any], batch_size: int = 1024) -> npt.NDArray[Any]:
    """The model's outputs in evaluation mode, without recording.

    Args:
        model: The model; its mode is restored.
        data: Inputs as one Tensor, array, table or nested list of numbers (N, ...), or batches of inputs or of (inputs,
            targets), such as a `DataLoader`.
        batch_size: How many rows of a Tensor or array go through at a time.

    Shape:
        The outputs of all rows, joined along axis 0.

    Raises:
        ValueError: No rows, rows one by one, as of a dataset, batch_size below 1, or outputs that are no Tensor with rows.

    Example:
        >>> predict(model, x).argmax(axis=1)
    """
    batch_size = at_least("predict", "batch_size", batch_size, 1)
    if _is_one(data):
        data = _batches(data, batch_size)
    check_batches("predict", data, pairs=False)
    with evaluating(model), no_grad():
        outputs = [_rows_of(model(inputs_of("predict", batch))) for batch in data]  # type: ignore[union-attr]
    if not outputs:
        raise ValueError("predict: expected at least 1 row, got none")
    return np.concatenate(outputs)


def _rows_of(outputs: Any) -> npt.NDArray[Any]:
    if not isinstance(outputs, Tensor) or outputs.ndim == 0:
        got = f"shape {outputs.shape}" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise ValueError(f"predict: expected a model whose output is a Tensor with a row for each input, got {got}")
    return outputs.numpy()


def _is_one(data: Any) -> bool:
    """Whether data is the rows themselves, rather than batches of them."""
    if isinstance(data, Tensor) or hasattr(data, "__array__"):
        return True
    while isinstance(data, list | tuple) and data:
        data = data[0]
    return isinstance(data, int | float | np.number)


def _batches(x: Any, size: int) -> Iterator[Tensor]:
    rows = x if isinstance(x, Tensor) else Tensor(x)
    return (rows[start : start + size] for start in range(0, len(rows), size))
