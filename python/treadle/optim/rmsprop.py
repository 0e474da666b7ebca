"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from treadle import _core
from treadle.optim.optimizer import Group, Optimizer, is_number

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    """v ← αv + (1 − α)g², p ← p − lr·g/(√v + eps); centered subtracts the square of the average gradient from v.

    Args:
        params: Parameters or groups of them.
        lr: Step size.
        alpha: Share of the average that is kept, in [0, 1).
        eps: Added to the denominator.
        weight_decay: Added to the gradient, times the parameter.
        momentum: Share of the last step that is kept.
        centered: Whether the variance of the gradient is used in place of its mean square.
        maximize: Climbs instead.

    Raises:
        ValueError: An option out of range.

    Example:
        >>> optimizer = optim.RMSprop(model.parameters(), lr=1e-3, centered=True)

    Source: Tieleman & Hinton 2012, lecture 6.5; Graves 2013 for the centred form.
    """

    slots = ("square_avg", "momentum_buffer", "grad_avg")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "maximize": maximize,
        }
        super().__init__(params, options)

    def _check(self, group: Group) -> None:
        super()._check(group)
        self._expect(group, "alpha", is_number(group["alpha"], below=1), "a number in [0, 1)")

    def _update(self, groups: Sequence[Group]) -> None:
        _core.rmsprop_step(groups)
