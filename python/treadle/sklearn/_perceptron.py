"""`Perceptron`: the network of the MLP estimators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treadle import init, nn
from treadle.optim import Optimizer
from treadle.sklearn._base import Network
from treadle.sklearn._checks import check_name
from treadle.sklearn._training import InverseScalingLR, Schedule

__all__ = ["Perceptron"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
_LOWEST_RATE = 1e-6  # below which "adaptive" stops, as in scikit-learn


class Perceptron(Network):
    """What `MLPClassifier` and `MLPRegressor` share: the network, and the rates of plain SGD."""

    hidden_layer_sizes: int | Sequence[int]
    activation: str
    learning_rate: str
    power_t: float
    nesterovs_momentum: bool
    batch_norm: bool
    dropout: float
    residual: bool

    def _check_parameters(self, incremental: bool) -> None:
        super()._check_parameters(incremental)
        check_name("activation", self.activation, _ACTIVATIONS)
        check_name("learning_rate", self.learning_rate, ("constant", "invscaling", "adaptive"))
        if self.learning_rate != "constant" and self.schedule is not None:
            raise ValueError(f"schedule: expected None with learning_rate={self.learning_rate!r}, got {self.schedule!r}")

    def _build(self, features: int, outputs: int) -> nn.Module:
        sizes = np.atleast_1d(np.asarray(self.hidden_layer_sizes, dtype=object)).tolist()
        layers: list[nn.Module] = []
        for size in sizes:
            layers += self._hidden(features, size)
            features = size
        return nn.Sequential(*layers, self._linear(features, outputs))

    def _hidden(self, features: int, size: int) -> list[nn.Module]:
        layers: list[nn.Module] = [self._linear(features, size)]
        layers += [nn.BatchNorm1d(size)] if self.batch_norm else []
        layers += [_ACTIVATIONS[self.activation]()]
        layers += [nn.Dropout(self.dropout, generator=self._generator)] if self.dropout else []
        return [nn.Residual(nn.Sequential(*layers))] if self.residual and features == size else layers

    def _linear(self, features: int, size: int) -> nn.Linear:
        """Initial values as scikit-learn draws them (Glorot and Bengio 2010)."""
        layer = nn.Linear(features, size, generator=self._generator)
        gain = 1 / np.sqrt(3) if self.activation == "logistic" else 1.0
        for p in layer.parameters():
            p.copy_(init.xavier_uniform(features, size, shape=p.shape, gain=gain, generator=self._generator))
        return layer

    def _begin(self, rows: int, mean_weight: float, go_on: bool) -> None:
        if self.batch_norm and self._batch_size(rows) == 1:
            how = "give more rows at once, and a batch_size above 1"
            raise ValueError(f"batch_norm: expected at least 2 rows in a batch to train on, got 1; {how}")
        super()._begin(rows, mean_weight, go_on)

    def _make_schedule(self, optimizer: Optimizer, rows: int, batches: int) -> Schedule | None:
        if self.learning_rate == "invscaling" and self.solver == "sgd":
            return InverseScalingLR(optimizer, rows, self.power_t)
        return super()._make_schedule(optimizer, rows, batches)

    def _slow_down(self, optimizer: Optimizer) -> bool:
        if self.learning_rate != "adaptive" or self.solver != "sgd" or optimizer.param_groups[0]["lr"] <= _LOWEST_RATE:
            return False
        for group in optimizer.param_groups:
            group["lr"] /= 5
        return True
