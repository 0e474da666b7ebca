"""Measures of a model's outputs, over whole arrays and batch by batch.

Every measure exists as a class with `reset`, `update` and `compute`, which `fit` and `evaluate` feed batch by batch
without keeping the outputs, and as a function over whole arrays. Sums are kept in float64; how rows are split into
batches changes a result only by rounding.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from treadle._core import Tensor
from treadle.checks import at_least

__all__ = ["MAE", "R2", "Accuracy", "Metric", "accuracy", "confusion_matrix", "mae", "r2"]

Values: TypeAlias = Tensor | npt.ArrayLike


class Metric(Protocol):
    """What `fit` and `evaluate` ask of a measure.

    A checkpoint inside an epoch keeps its attributes, and those of objects that it holds, or what its `state_dict` gives where
    there is a `load_state_dict`, too. Where it cannot, as of a set or of what `update` puts into two places, `fit` warns, and
    writes none inside an epoch.
    """

    def reset(self) -> None:
        """Forgets every batch seen."""

    def update(self, outputs: Values, targets: Values) -> None:
        """Takes in one batch."""

    def compute(self) -> float:
        """The measure over the batches since `reset`; NaN when there were none."""


class Accuracy:
    """The share of rows whose largest output is at the target's class, or, of two classes with one output, on its side.

    Args:
        threshold: The output above which a row is of class 1 where there is one output: 0 for logits, 0.5 for
            probabilities; None: there is an output for each class.

    Example:
        >>> metric = Accuracy()
        >>> metric.update([[0.1, 0.9], [0.8, 0.2]], [1, 1])
        >>> metric.compute()
        0.5
        >>> logits = Accuracy(threshold=0.0)
    """

    def __init__(self, threshold: float | None = None) -> None:
        self.threshold = threshold
        self.reset()

    def reset(self) -> None:
        """Forgets every batch seen."""
        self._right = 0
        self._seen = 0

    def update(self, outputs: Values, targets: Values) -> None:
        """Takes in one batch.

        Args:
            outputs: Scores (N, C), or class indices (N,); with a threshold (N,) or (N, 1).
            targets: Class indices (N,), or probabilities (N, C); with a threshold 0 and 1, or probabilities of 1.

        Raises:
            ValueError: The numbers of rows differ, or there is one output where there is no threshold, or more than one
                where there is.
        """
        predicted, wanted = _compared("accuracy", outputs, targets, self.threshold)
        self._right += int(np.count_nonzero(predicted == wanted))
        self._seen += len(wanted)

    def compute(self) -> float:
        """The share of right answers so far; NaN before the first."""
        return self._right / self._seen if self._seen else float("nan")


class MAE:
    """The mean absolute error."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets every batch seen."""
        self._sum = 0.0
        self._seen = 0

    def update(self, outputs: Values, targets: Values) -> None:
        """Takes in one batch of values and targets of the same number of elements; raises ValueError otherwise."""
        y, t = _flat(outputs), _flat(targets)
        _same_rows("mae", y, t)
        self._sum += float(np.abs(y - t).sum())
        self._seen += t.size

    def compute(self) -> float:
        """The mean so far; NaN before the first value."""
        return self._sum / self._seen if self._seen else float("nan")


class R2:
    """The coefficient of determination, 1 − Σ(t − y)² / Σ(t − t̄)²; NaN when the targets do not vary, or squares overflow.

    The spread of the targets is merged batch by batch with Chan's rule, so far-from-zero targets lose no digits.

    Source: Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance".
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets every batch seen."""
        self._residual = 0.0
        self._spread = 0.0
        self._mean = 0.0
        self._seen = 0

    def update(self, outputs: Values, targets: Values) -> None:
        """Takes in one batch of values and targets of the same number of elements; raises ValueError otherwise."""
        y, t = _flat(outputs), _flat(targets)
        _same_rows("r2", y, t)
        if not t.size:
            return
        mean, total = float(t.mean()), self._seen + t.size
        shift = mean - self._mean
        self._residual += float(np.square(t - y).sum())
        self._spread += float(np.square(t - mean).sum()) + shift * shift * self._seen * t.size / total
        self._mean += shift * t.size / total
        self._seen = total

    def compute(self) -> float:
        """The coefficient so far; NaN when the targets seen vary by no more than rounding."""
        rounding = 4.0 * float(np.finfo(np.float64).eps) * self._mean
        varied = self._spread > self._seen * rounding * rounding  # ** would raise where * gives infinity
        return 1.0 - self._residual / self._spread if varied else float("nan")


def accuracy(outputs: Values, targets: Values, threshold: float | None = None) -> float:
    """The share of rows whose largest output is at the target's class; arguments and errors are those of `Accuracy`.

    Example:
        >>> accuracy([[0.1, 0.9], [0.8, 0.2]], [1, 0])
        1.0
        >>> accuracy([[-1.5], [0.2]], [0, 0], threshold=0.0)
        0.5
    """
    return _whole(Accuracy(threshold), outputs, targets)


def mae(outputs: Values, targets: Values) -> float:
    """The mean absolute error of values against targets of the same number of elements.

    Raises:
        ValueError: The numbers of elements differ.

    Example:
        >>> mae([1.0, 2.0], [1.0, 4.0])
        1.0
    """
    return _whole(MAE(), outputs, targets)


def r2(outputs: Values, targets: Values) -> float:
    """The coefficient of determination of values against targets of the same number of elements; see `R2`.

    Raises:
        ValueError: The numbers of elements differ.

    Example:
        >>> r2([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
        1.0
    """
    return _whole(R2(), outputs, targets)


def confusion_matrix(
    outputs: Values, targets: Values, num_classes: int | None = None, threshold: float | None = None
) -> npt.NDArray[np.int64]:
    """Counts of true class (row) against predicted class (column).

    Args:
        outputs: Scores (N, C), or class indices (N,); with a threshold (N,) or (N, 1).
        targets: Class indices (N,), or probabilities (N, C); with a threshold 0 and 1, or probabilities of 1.
        num_classes: The side of the result; None: one more than the largest class seen.
        threshold: As of `Accuracy`.

    Shape:
        (num_classes, num_classes), int64.

    Raises:
        TypeError: Classes that are not numbers, or a num_classes that is no integer.
        ValueError: A class lies outside [0, num_classes), or as of `Accuracy`.

    Example:
        >>> confusion_matrix([0, 1, 1], [0, 1, 0]).tolist()
        [[1, 1], [0, 1]]
    """
    predicted, wanted = _compared("confusion_matrix", outputs, targets, threshold)
    for values in (predicted, wanted):
        if values.dtype.kind not in "biuf":
            how = "number them by their place among all names, sorted, as np.searchsorted(names, classes) does"
            raise TypeError(f"confusion_matrix: expected numbers of classes, got {values.dtype}; {how}")
    both = np.concatenate([predicted, wanted]).astype(np.int64)
    largest = int(both.max()) + 1 if both.size else 0
    side = largest if num_classes is None else at_least("confusion_matrix", "num_classes", num_classes, 0)
    if both.size and (both.min() < 0 or both.max() >= side):
        raise ValueError(f"confusion_matrix: expected classes in [0, {side}), got {both.min()} to {both.max()}")
    n = len(wanted)
    return np.bincount(both[n:] * side + both[:n], minlength=side * side).reshape(side, side).astype(np.int64)


def _whole(metric: Metric, outputs: Values, targets: Values) -> float:
    metric.update(outputs, targets)
    return metric.compute()


def _array(values: Values) -> npt.NDArray[Any]:
    return values.numpy() if isinstance(values, Tensor) else np.asarray(values)


def _compared(name: str, outputs: Values, targets: Values, threshold: float | None) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Predicted and true class indices, as many of each."""
    if threshold is None:
        predicted, wanted = (_classes(name, what, v) for what, v in (("outputs", outputs), ("targets", targets)))
    else:
        predicted, wanted = _column(name, "outputs", outputs) > threshold, _column(name, "targets", targets)
        wanted = wanted > 0.5 if wanted.dtype.kind == "f" else wanted
    _same_rows(name, predicted, wanted)
    return predicted, wanted


def _classes(name: str, what: str, values: Values) -> npt.NDArray[Any]:
    """Class indices (N,): scores (N, C) become the index of each row's largest."""
    array = _array(values)
    if array.ndim == 2 and array.shape[1] != 1:
        largest: npt.NDArray[np.intp] = array.argmax(axis=1)
        return largest
    if array.ndim != 1 or (array.dtype.kind == "f" and not np.array_equal(array, np.trunc(array))):
        raise ValueError(
            f"{name}: expected {what} as scores (N, C) or class indices (N,), got {array.dtype} of shape {array.shape}; "
            "with one output for two classes give the threshold, 0.0 for logits, 0.5 for probabilities"
        )
    return array


def _column(name: str, what: str, values: Values) -> npt.NDArray[Any]:
    """One value for each row."""
    array = _array(values)
    if array.shape not in ((array.size,), (array.size, 1)):
        raise ValueError(f"{name}: expected {what} (N,) or (N, 1) with a threshold, got shape {array.shape}")
    return array.reshape(-1)


def _flat(values: Values) -> npt.NDArray[np.float64]:
    return _array(values).astype(np.float64).reshape(-1)


def _same_rows(name: str, outputs: npt.NDArray[Any], targets: npt.NDArray[Any]) -> None:
    if outputs.shape != targets.shape:
        raise ValueError(f"{name}: expected as many outputs as targets, got {outputs.shape} and {targets.shape}")
