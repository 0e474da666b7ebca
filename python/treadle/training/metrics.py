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

__all__ = ["MAE", "R2", "Accuracy", "Metric", "accuracy", "confusion_matrix", "mae", "r2"]

Values: TypeAlias = Tensor | npt.ArrayLike


class Metric(Protocol):
    """What `fit` and `evaluate` ask of a measure; a checkpoint inside an epoch keeps its attributes."""

    def reset(self) -> None:
        """Forgets every batch seen."""

    def update(self, outputs: Values, targets: Values) -> None:
        """Takes in one batch."""

    def compute(self) -> float:
        """The measure over the batches since `reset`; NaN when there were none."""


class Accuracy:
    """The share of rows whose largest output is at the target's class.

    Example:
        >>> metric = Accuracy()
        >>> metric.update([[0.1, 0.9], [0.8, 0.2]], [1, 1])
        >>> metric.compute()
        0.5
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets every batch seen."""
        self._right = 0
        self._seen = 0

    def update(self, outputs: Values, targets: Values) -> None:
        """Takes in one batch.

        Args:
            outputs: Scores (N, C), or class indices (N,).
            targets: Class indices (N,), or probabilities (N, C).

        Raises:
            ValueError: The numbers of rows differ.
        """
        predicted, wanted = _classes(outputs), _classes(targets)
        _same_rows("accuracy", predicted, wanted)
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
    """The coefficient of determination, 1 − Σ(t − y)² / Σ(t − t̄)²; NaN when the targets do not vary.

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
        rounding = self._seen * (4.0 * float(np.finfo(np.float64).eps) * self._mean) ** 2
        return 1.0 - self._residual / self._spread if self._spread > rounding else float("nan")


def accuracy(outputs: Values, targets: Values) -> float:
    """The share of rows whose largest output is at the target's class.

    Args:
        outputs: Scores (N, C), or class indices (N,).
        targets: Class indices (N,), or probabilities (N, C).

    Raises:
        ValueError: The numbers of rows differ.

    Example:
        >>> accuracy([[0.1, 0.9], [0.8, 0.2]], [1, 0])
        1.0
    """
    return _whole(Accuracy(), outputs, targets)


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


def confusion_matrix(outputs: Values, targets: Values, num_classes: int | None = None) -> npt.NDArray[np.int64]:
    """Counts of true class (row) against predicted class (column).

    Args:
        outputs: Scores (N, C), or class indices (N,).
        targets: Class indices (N,), or probabilities (N, C).
        num_classes: The side of the result; None: one more than the largest class seen.

    Shape:
        (num_classes, num_classes), int64.

    Raises:
        ValueError: The numbers of rows differ, or a class lies outside [0, num_classes).

    Example:
        >>> confusion_matrix([0, 1, 1], [0, 1, 0]).tolist()
        [[1, 1], [0, 1]]
    """
    predicted, wanted = _classes(outputs), _classes(targets)
    _same_rows("confusion_matrix", predicted, wanted)
    both = np.concatenate([predicted, wanted]).astype(np.int64)
    side = (int(both.max()) + 1 if both.size else 0) if num_classes is None else num_classes
    if both.size and (both.min() < 0 or both.max() >= side):
        raise ValueError(f"confusion_matrix: expected classes in [0, {side}), got {both.min()} to {both.max()}")
    n = len(wanted)
    return np.bincount(both[n:] * side + both[:n], minlength=side * side).reshape(side, side).astype(np.int64)


def _whole(metric: Metric, outputs: Values, targets: Values) -> float:
    metric.update(outputs, targets)
    return metric.compute()


def _array(values: Values) -> npt.NDArray[Any]:
    return values.numpy() if isinstance(values, Tensor) else np.asarray(values)


def _classes(values: Values) -> npt.NDArray[Any]:
    """Class indices (N,): scores (N, C) become the index of each row's largest."""
    array = _array(values)
    return array.argmax(axis=1) if array.ndim == 2 else array.reshape(-1)


def _flat(values: Values) -> npt.NDArray[np.float64]:
    return _array(values).astype(np.float64).reshape(-1)


def _same_rows(name: str, outputs: npt.NDArray[Any], targets: npt.NDArray[Any]) -> None:
    if outputs.shape != targets.shape:
        raise ValueError(f"{name}: expected as many outputs as targets, got {outputs.shape} and {targets.shape}")
