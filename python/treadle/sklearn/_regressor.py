"""`NetworkRegressor`: what y means to a regressor, and what outputs mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d

from treadle import _core
from treadle._core import Tensor
from treadle.moments import moments
from treadle.sklearn._base import Array, Network
from treadle.sklearn._checks import check_name
from treadle.sklearn._training import Criterion

__all__ = ["NetworkRegressor"]


class NetworkRegressor(RegressorMixin, Network):  # type: ignore[misc]
    """A network over numbers."""

    loss: str | Callable[[Tensor, Tensor], Tensor]
    scale_target: bool
    _score_name = "r2"

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch, going on from where the last call or `fit` ended.

        With `scale_target` the first call decides how y is scaled.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Dense numbers.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, None, incremental=True)

    def predict(self, X: Any) -> Array:
        """The predicted numbers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Dense numbers.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            In the shape and scale of y in `fit`; float64, as float32 may hold neither the scale of y nor its digits.
        """
        y = self._outputs(X) * self._spread + self._center
        return y[:, 0] if self._flat else y

    def _score_outputs(self, outputs: Array, targets: Array, weight: Array | None) -> float:
        return float(r2_score(targets, outputs, sample_weight=None if weight is None else weight[:, 0]))

    def _encode(self, y: Array, weight: Array, fresh: bool, classes: Any) -> Array:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        columns = y.reshape(len(y), -1).astype(np.float64, order="C")  # sums depend on the order, bit by bit
        if fresh:
            self._flat, self.n_outputs_ = y.ndim == 1, columns.shape[1]
            self._learn_scale(columns[weight > 0], weight[weight > 0])
        if columns.shape[1] != self.n_outputs_:
            raise ValueError(f"y: expected {self.n_outputs_} columns as before, got {columns.shape[1]}")
        return np.asarray((columns - self._center) / self._spread)

    def _learn_scale(self, columns: Array, weight: Array) -> None:
        """Sets center and spread of y, 0 and 1 without `scale_target`."""
        self._center, self._spread = np.zeros(self.n_outputs_), np.ones(self.n_outputs_)
        if self.scale_target:
            self._center, self._spread = moments(columns, weight)

    def _check_parameters(self, incremental: bool) -> None:
        super()._check_parameters(incremental)
        if isinstance(self.loss, type):
            name = self.loss.__name__
            raise TypeError(f"loss: expected a name or a function, got the class {name}; make one of it: {name}(reduction='none')")
        if not callable(self.loss):
            check_name("loss", self.loss, _LOSSES)

    def _criterion(self) -> Criterion:
        if callable(self.loss):
            return Criterion(_Reduced(self.loss))
        function, scale = _LOSSES[self.loss]
        return Criterion(function, scale * self.n_outputs_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class _Reduced:
    """A loss of one's own, which gives one value per element, with the reductions that training asks for."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.function = function

    def __call__(self, outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
        each = self.function(outputs, targets)
        if not isinstance(each, Tensor):
            raise TypeError(f"loss: expected a Tensor of shape {targets.shape}, one value per target, got a {type(each).__name__}")
        if each.shape != targets.shape:
            raise ValueError(f"loss: expected one value per target, of shape {targets.shape}, got {each.shape}")
        return each.mean() if reduction == "mean" else each


def _huber_loss(outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
    return _core.huber_loss(outputs, targets, 1.0, reduction)


# Squared errors are halved, as in scikit-learn; each loss is summed over the columns of y.
_LOSSES: dict[str, tuple[Callable[[Tensor, Tensor, str], Tensor], float]] = {
    "squared_error": (_core.mse_loss, 0.5),
    "absolute_error": (_core.l1_loss, 1.0),
    "huber": (_huber_loss, 1.0),
}
