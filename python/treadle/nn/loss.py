"""Losses as layers; `reduction` is "mean", "sum" or "none" everywhere."""

from __future__ import annotations

from inspect import signature

from treadle import _core
from treadle._core import Tensor
from treadle.checks import above_zero, probability
from treadle.nn.module import Module
from treadle.nn.parameter import Buffer

__all__ = ["BCEWithLogitsLoss", "CrossEntropyLoss", "HuberLoss", "L1Loss", "MSELoss", "NLLLoss", "SoftmaxLoss"]


class _Loss(Module):
    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"loss: expected reduction 'mean', 'sum' or 'none', got {reduction!r}")
        self.reduction = reduction

    def extra_repr(self) -> str:
        """The reduction, and all other arguments that are not at their default."""
        shown = [f"reduction={self.reduction!r}"]
        for name, argument in signature(type(self)).parameters.items():
            value = getattr(self, name, argument.default)
            if isinstance(value, Tensor):
                shown.append(f"{name} of shape {value.shape}")
            elif isinstance(value, int | float) and value != argument.default:
                shown.append(f"{name}={value!r}")
        return ", ".join(shown)


def _buffer(weight: Tensor | None) -> Buffer | None:
    return None if weight is None else Buffer(weight)


class CrossEntropyLoss(_Loss):
    """−log softmax(logits) at the target class.

    Args:
        weight: Weight of each class, (C,); the mean is weighted by it.
        reduction: "mean", "sum" or "none".
        label_smoothing: Share of every target that is spread evenly over all classes, in [0, 1].
        ignore_index: Class number whose rows do not count.

    Shape:
        logits (N, C); target (N,) of int64 class numbers, or (N, C) of probabilities; output scalar, or (N,) for "none".

    Raises:
        ValueError: A reduction or label_smoothing outside what is said above, or shapes that do not fit.
        IndexError: A class number outside [0, C).

    Example:
        >>> nn.CrossEntropyLoss()(model(x), y).backward()

    Source: label smoothing is from Szegedy et al. 2016, "Rethinking the inception architecture for computer vision".
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(reduction)
        self.weight = _buffer(weight)
        self.label_smoothing = probability("cross_entropy", "label_smoothing", label_smoothing)
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C) and (N,) or (N, C) → scalar or (N,)."""
        return _core.cross_entropy(logits, target, self.weight, self.reduction, self.label_smoothing, self.ignore_index)


class SoftmaxLoss(CrossEntropyLoss):
    """`CrossEntropyLoss` under the name it has in course material; arguments, shapes and errors are the same."""


class NLLLoss(_Loss):
    """−logp at the target class, with logp as `log_softmax` gives it.

    Args:
        weight: Weight of each class, (C,); the mean is weighted by it.
        reduction: "mean", "sum" or "none".
        ignore_index: Class number whose rows do not count.

    Shape:
        logp (N, C); target (N,) of int64 class numbers; output scalar, or (N,) for "none".

    Raises:
        IndexError: A class number outside [0, C).

    Example:
        >>> nn.NLLLoss()(model(x).log_softmax(), y).backward()
    """

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean", ignore_index: int = -100) -> None:
        super().__init__(reduction)
        self.weight = _buffer(weight)
        self.ignore_index = ignore_index

    def forward(self, logp: Tensor, target: Tensor) -> Tensor:
        """(N, C) and (N,) → scalar or (N,)."""
        return _core.nll_loss(logp, target, self.weight, self.reduction, self.ignore_index)


class MSELoss(_Loss):
    """(x − y)².

    Args:
        reduction: "mean", "sum" or "none".

    Shape:
        x and y of one shape; output scalar, or that shape for "none".

    Raises:
        ValueError: Shapes that differ.

    Example:
        >>> nn.MSELoss()(model(x), y).backward()
    """

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two of one shape → scalar or that shape."""
        return _core.mse_loss(x, y, self.reduction)


class L1Loss(_Loss):
    """|x − y|; arguments, shapes and errors as `MSELoss`."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two of one shape → scalar or that shape."""
        return _core.l1_loss(x, y, self.reduction)


class HuberLoss(_Loss):
    """½(x − y)² within delta, delta·(|x − y| − delta/2) beyond; shapes as `MSELoss`.

    Args:
        reduction: "mean", "sum" or "none".
        delta: Where the parabola meets the line; above 0.

    Raises:
        ValueError: delta not above 0, or shapes that differ.

    Source: Huber 1964, "Robust estimation of a location parameter".
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = above_zero("huber_loss", "delta", delta)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two of one shape → scalar or that shape."""
        return _core.huber_loss(x, y, self.delta, self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross-entropy of sigmoid(x), without overflow.

    Args:
        weight: Weight of each element, broadcast against the input.
        reduction: "mean", "sum" or "none".
        pos_weight: Weight of the positive targets, broadcast against the input.

    Shape:
        x logits and y in [0, 1], of one shape; output scalar, or that shape for "none".

    Raises:
        ValueError: Shapes that differ.

    Example:
        >>> nn.BCEWithLogitsLoss()(model(x), y).backward()
    """

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean", pos_weight: Tensor | None = None) -> None:
        super().__init__(reduction)
        self.weight, self.pos_weight = _buffer(weight), _buffer(pos_weight)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two of one shape → scalar or that shape."""
        return _core.bce_with_logits(x, y, self.weight, self.pos_weight, self.reduction)
