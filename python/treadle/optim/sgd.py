"""Stochastic gradient descent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from treadle import _core
from treadle.optim.optimizer import Group, Optimizer, is_number

__all__ = ["SGD"]


class SGD(Optimizer):
    """p ← p − lr·g; with momentum, v ← momentum·v + (1 − dampening)·g and p ← p − lr·v.

    Args:
        params: Parameters or groups of them.
        lr: Step size.
        momentum: Share of the last step that is kept.
        dampening: Share of the gradient that momentum leaves out, from the second step on.
        weight_decay: Added to the gradient, times the parameter.
        nesterov: Looks ahead: p ← p − lr·(g + momentum·v).
        maximize: Climbs instead.

    Raises:
        ValueError: An option out of range, or nesterov without momentum.

    Example:
        >>> optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> loss.backward(); optimizer.step(); optimizer.zero_grad()

    Source: Sutskever et al. 2013; the momentum of PyTorch.
    """

    slots = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, options)

    def _check(self, group: Group) -> None:
        super()._check(group)
        self._expect(group, "dampening", is_number(group["dampening"], low=-math.inf), "a finite number")
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            got = f"momentum {group['momentum']} and dampening {group['dampening']}"
            raise ValueError(f"sgd: expected momentum above 0 and no dampening with nesterov, got {got}")

    def _update(self, groups: Sequence[Group]) -> None:
        _core.sgd_step(groups)
