"""What the estimators hand to `treadle.training.fit`: rows, losses with weights, scikit-learn's rule for stopping, and
optimizers and schedules by name.

Invariant: an epoch is decided by the network, the optimizer, the rows and the generator, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from treadle import _core
from treadle._core import Generator, Tensor
from treadle.nn import Module
from treadle.optim import SGD, Adam, AdamW, CosineAnnealingLR, LRScheduler, OneCycleLR, Optimizer, ReduceLROnPlateau, RMSprop
from treadle.training import EarlyStopping
from treadle.training.history import Value

__all__ = [
    "SCHEDULES",
    "SOLVERS",
    "Array",
    "Criterion",
    "InverseScalingLR",
    "Progress",
    "Rows",
    "Schedule",
    "Score",
    "Targets",
    "make_optimizer",
    "make_schedule",
]

Array: TypeAlias = npt.NDArray[Any]
Function: TypeAlias = Callable[[Tensor, Tensor, str], Tensor]
Schedule: TypeAlias = LRScheduler | ReduceLROnPlateau


class Targets(NamedTuple):
    """Targets of some rows, and weights in the shape of the unreduced loss, with mean 1 over all rows; None: all are 1."""

    y: Tensor
    weight: Tensor | None

    def __len__(self) -> int:
        return len(self.y)


class Criterion:
    """A loss: `scale` times the mean of `function(outputs, targets, reduction)` over its elements, weighted by the targets."""

    def __init__(self, function: Function, scale: float = 1.0) -> None:
        self.function, self.scale = function, scale

    def __call__(self, outputs: Tensor, targets: Targets) -> Tensor:
        """The loss of a batch."""
        if targets.weight is not None:
            each = self.function(outputs, targets.y, "none")
            return (each * (targets.weight * (self.scale / each.numel()))).sum()
        mean = self.function(outputs, targets.y, "mean")
        return mean if self.scale == 1.0 else mean * self.scale


class Score:
    """A metric of `fit`: `function(outputs, targets, weight)` over all rows."""

    def __init__(self, function: Callable[[Array, Array, Array | None], float]) -> None:
        self.function = function
        self.reset()

    def reset(self) -> None:
        """Forgets every batch seen."""
        self._seen: list[tuple[Array, Array, Array | None]] = []

    def update(self, outputs: Any, targets: Any) -> None:
        """Takes in one batch: a Tensor and `Targets`."""
        weight = None if targets.weight is None else targets.weight.numpy()
        self._seen.append((outputs.numpy(), targets.y.numpy(), weight))

    def compute(self) -> float:
        """The score over the batches since `reset`."""
        outputs, targets, weights = zip(*self._seen, strict=True)
        weight = None if weights[0] is None else np.concatenate(weights)
        return self.function(np.concatenate(outputs), np.concatenate(targets), weight)


@dataclass(slots=True)
class Rows:
    """Inputs and targets, in batches of `size` in an order drawn from the generator, or as they are.

    A single row left over goes with the batch before.
    """

    x: Tensor
    targets: Targets
    size: int = 1024
    generator: Generator | None = None

    def __len__(self) -> int:
        return len(self._sizes())

    def __iter__(self) -> Iterator[tuple[Tensor, Targets]]:
        n = len(self.x)
        if self.size >= n:
            yield self.x, self.targets
            return
        sizes, (y, weight) = self._sizes(), self.targets
        order = _core.arange(n) if self.generator is None else _core.randperm(n, self.generator)
        for index in order.split(sizes):
            part = None if weight is None else _core.gather_rows(weight, index)
            yield _core.gather_rows(self.x, index), Targets(_core.gather_rows(y, index), part)

    def _sizes(self) -> list[int]:
        n, size = len(self.x), self.size
        if size >= n:
            return [n]
        sizes = [size] * (n // size) + ([n % size] if n % size else [])
        if size > 1 and sizes[-1] == 1:
            sizes[-2:] = [sizes[-2] + 1]
        return sizes


class Progress(EarlyStopping):
    """scikit-learn's rule: any better value is the best, but only one better by at least `tol` than the best before it is
    progress; so is the same value again for a `tol` of 0.

    Training has stopped once more than `epochs` epochs in a row were no progress, and `slow_down` has no lower rate to go on at.
    With `highest` the highest value is the best, and its weights are the ones to keep.
    """

    def __init__(
        self,
        monitor: str,
        epochs: int,
        tol: float,
        slow_down: Callable[[], bool],
        *,
        highest: bool,
    ) -> None:
        super().__init__(monitor, mode="max" if highest else "min", restore_best=highest)
        self.patience = epochs + 1  # infinity, too
        self.tol, self.slow_down = tol, slow_down

    def update(self, row: Mapping[str, Value], model: Module) -> None:
        """Takes in an epoch's row of the history."""
        best, waited = self._best, self._waited
        super().update(row, model)
        self._waited = 0 if self._score(row) <= best - self.tol else waited + 1
        if self.stopped and self.slow_down():
            self._waited = 0


class InverseScalingLR(LRScheduler):
    """The first rate over (rows seen + 1)^power_t; `step()` after every epoch of `rows` rows."""

    def __init__(self, optimizer: Optimizer, rows: int, power_t: float) -> None:
        self.rows, self.power_t = rows, power_t
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """(step·rows + 1)^−power_t."""
        return float((step * self.rows + 1) ** -self.power_t)


def make_optimizer(name: str, net: Module, rate: float, momentum: float, nesterov: bool) -> Optimizer:
    """An optimizer by name, with the matrices (and larger) in one group and everything that is not decayed in another."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    parts: list[Any] = [[p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim < 2]]
    groups = [{"params": part, "weight_decay": 0.0} for part in parts if part]
    return SOLVERS[name](groups, rate, momentum, nesterov and momentum > 0)


SOLVERS: dict[str, Callable[[Any, float, float, bool], Optimizer]] = {
    "sgd": lambda groups, rate, momentum, nesterov: SGD(groups, rate, momentum, nesterov=nesterov),
    "adam": lambda groups, rate, momentum, nesterov: Adam(groups, rate),
    "adamw": lambda groups, rate, momentum, nesterov: AdamW(groups, rate),
    "rmsprop": lambda groups, rate, momentum, nesterov: RMSprop(groups, rate),
}


SCHEDULES = ("cosine", "one_cycle")


def make_schedule(schedule: Any, optimizer: Optimizer, rate: float, epochs: int, batches: int) -> Schedule | None:
    """A schedule by name, or what a callable makes of the optimizer."""
    if schedule is None:
        return None
    if callable(schedule):
        made = schedule(optimizer)
        if not isinstance(made, LRScheduler | ReduceLROnPlateau):
            raise TypeError(f"schedule: expected a callable that makes a learning-rate schedule, got {type(made).__name__}")
        return made
    return CosineAnnealingLR(optimizer, epochs) if schedule == "cosine" else OneCycleLR(optimizer, rate, epochs * batches)
