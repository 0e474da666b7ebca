"""The training loop under the estimators, with as few calls per step as there can be, and what they build it from by name.

Invariant: an epoch is decided by the network, the optimizer, the rows and the generator, and by nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from treadle import _core
from treadle._core import Generator, Tensor
from treadle.nn import Module
from treadle.optim import SGD, Adam, AdamW, CosineAnnealingLR, LRScheduler, OneCycleLR, Optimizer, ReduceLROnPlateau, RMSprop
from treadle.training import EarlyStopping
from treadle.training.history import Value

__all__ = [
    "Criterion",
    "InverseScalingLR",
    "Progress",
    "Rows",
    "Schedule",
    "choose",
    "make_optimizer",
    "make_schedule",
    "train_epoch",
]

Function: TypeAlias = Callable[[Tensor, Tensor, str], Tensor]
Schedule: TypeAlias = LRScheduler | ReduceLROnPlateau


def choose(parameter: str, value: Any, options: Any) -> Any:
    """The option of a name; ValueError when there is none."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{parameter}: expected one of {sorted(options)}, got {value!r}")
    return options[value]


@dataclass(slots=True)
class Criterion:
    """A loss: `scale` times the mean of `function(outputs, targets, reduction)` over its elements, weighted by `Rows.weight`."""

    function: Function
    scale: float = 1.0

    def value(self, outputs: Tensor, targets: Tensor, weight: Tensor | None) -> float:
        """The loss, without gradients."""
        if weight is None:
            return self.scale * float(self.function(outputs, targets, "mean").item())
        each = self.function(outputs, targets, "none").numpy()
        return self.scale * float(np.vdot(each, weight.numpy())) / each.size

    def backward(self, outputs: Tensor, targets: Tensor, weight: Tensor | None) -> float:
        """Leaves gradients with the parameters and gives the loss."""
        if weight is None:
            mean = self.function(outputs, targets, "mean")
            mean.backward(None if self.scale == 1.0 else self.scale)
            return self.scale * float(mean.item())
        each = self.function(outputs, targets, "none")
        share = weight * (self.scale / each.numel())
        each.backward(share)
        return float(np.vdot(each.numpy(), share.numpy()))


@dataclass(slots=True)
class Rows:
    """Inputs, targets, and weights in the shape of the unreduced loss, with mean 1 over the rows; None: all are 1."""

    x: Tensor
    y: Tensor
    weight: Tensor | None = None

    def batches(self, size: int, generator: Generator | None) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Batches in an order drawn from the generator, or as they are; a single row left over goes with the batch before."""
        n = len(self.x)
        if size >= n:
            yield self.x, self.y, self.weight
            return
        sizes = [size] * (n // size) + ([n % size] if n % size else [])
        if size > 1 and sizes[-1] == 1:
            sizes[-2:] = [sizes[-2] + 1]
        order = _core.arange(n) if generator is None else _core.randperm(n, generator)
        for index in order.split(sizes):
            weight = None if self.weight is None else _core.gather_rows(self.weight, index)
            yield _core.gather_rows(self.x, index), _core.gather_rows(self.y, index), weight


def train_epoch(
    net: Module,
    optimizer: Optimizer,
    criterion: Criterion,
    rows: Rows,
    size: int,
    generator: Generator | None,
    after_batch: Callable[[], object] | None,
) -> float:
    """One pass over the rows by a network in training mode; the mean loss.

    Raises:
        FloatingPointError: The loss became infinite or NaN.
    """
    total = 0.0
    for x, y, weight in rows.batches(size, generator):
        outputs = net(x)
        optimizer.zero_grad()
        total += criterion.backward(outputs, y, weight) * len(x)
        optimizer.step()
        if after_batch is not None:
            after_batch()
    if not math.isfinite(total):
        raise FloatingPointError(f"fit: expected a finite loss, got {total}; scale the data or lower learning_rate_init")
    return total / len(rows.x)


class Progress(EarlyStopping):
    """scikit-learn's rule: any better value is the best, but only one better by `tol` than the best before it is progress.

    Training has stopped once more than `epochs` epochs in a row were no progress.
    """

    def __init__(self, monitor: str, epochs: int, tol: float, mode: Literal["min", "max"], restore_best: bool) -> None:
        super().__init__(monitor, epochs + 1, 0.0, mode, restore_best)
        self.tol = tol

    def update(self, row: Mapping[str, Value], model: Module) -> None:
        """Takes in an epoch's row of the history."""
        best, waited = self._best, self._waited
        super().update(row, model)
        if self._best > best - self.tol:
            self._waited = waited + 1

    def go_on(self) -> None:
        """Counts anew; the best stays what it is."""
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
    made: Optimizer = choose("solver", name, _SOLVERS)(groups, rate, momentum, nesterov and momentum > 0)
    return made


_SOLVERS: dict[str, Callable[[Any, float, float, bool], Optimizer]] = {
    "sgd": lambda groups, rate, momentum, nesterov: SGD(groups, rate, momentum, nesterov=nesterov),
    "adam": lambda groups, rate, momentum, nesterov: Adam(groups, rate),
    "adamw": lambda groups, rate, momentum, nesterov: AdamW(groups, rate),
    "rmsprop": lambda groups, rate, momentum, nesterov: RMSprop(groups, rate),
}


def make_schedule(schedule: Any, optimizer: Optimizer, rate: float, epochs: int, batches: int) -> Schedule | None:
    """A schedule by name, or what a callable makes of the optimizer."""
    if schedule is None:
        return None
    if callable(schedule):
        made = schedule(optimizer)
        if not isinstance(made, LRScheduler | ReduceLROnPlateau):
            raise TypeError(f"schedule: expected a callable that makes a learning-rate schedule, got {type(made).__name__}")
        return made
    if choose("schedule", schedule, {"cosine": True, "one_cycle": False}):
        return CosineAnnealingLR(optimizer, epochs)
    return OneCycleLR(optimizer, rate, epochs * batches)
