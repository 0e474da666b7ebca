"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from treadle import _core
from treadle.optim.optimizer import Group, Optimizer, is_number

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², p ← p − lr·m̂/(√v̂ + eps), with m̂ and v̂ corrected for their start at 0.

    Args:
        params: Parameters or groups of them.
        lr: Step size.
        betas: (β₁, β₂), each in [0, 1).
        eps: Added to the denominator.
        weight_decay: Added to the gradient, times the parameter.
        maximize: Climbs instead.

    Raises:
        ValueError: An option out of range.

    Example:
        >>> optimizer = optim.Adam(model.parameters(), lr=1e-3)

    Source: Kingma & Ba 2015, "Adam: a method for stochastic optimization".
    """

    slots = ("exp_avg", "exp_avg_sq")
    _decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize})

    def _check(self, group: Group) -> None:
        super()._check(group)
        betas = group["betas"]
        two = isinstance(betas, tuple | list) and len(betas) == 2 and all(is_number(beta, below=1) for beta in betas)
        self._expect(group, "betas", two, "two numbers in [0, 1)")

    def _update(self, groups: Sequence[Group]) -> None:
        _core.adam_step(groups, self._decoupled)


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameter itself: p ← p − lr·weight_decay·p. Arguments as `Adam`.

    Source: Loshchilov & Hutter 2019, "Decoupled weight decay regularization".
    """

    _decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, maximize=maximize)
