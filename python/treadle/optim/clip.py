"""Clipping of gradients."""

from __future__ import annotations

from collections.abc import Iterable

from treadle import _core
from treadle._core import Tensor
from treadle.checks import tensors

__all__ = ["clip_grad_norm_", "clip_grad_value_"]


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0) -> float:
    """Scales all gradients together so that their norm, taken as of one vector, is at most `max_norm`.

    Args:
        parameters: A tensor or several; those without a gradient are skipped.
        max_norm: At least 0.
        norm_type: The p of the norm; `math.inf` is the largest element.

    Returns:
        The norm before.

    Raises:
        ValueError: max_norm below 0 or norm_type not above 0.

    Example:
        >>> loss.backward()
        >>> norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)

    Source: Pascanu et al. 2013, "On the difficulty of training recurrent neural networks".
    """
    return _core.clip_grad_norm(tensors("clip_grad_norm", parameters), max_norm, norm_type)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Holds every element of every gradient within ±clip_value.

    Args:
        parameters: A tensor or several; those without a gradient are skipped.
        clip_value: At least 0.

    Raises:
        ValueError: A clip_value below 0.
    """
    _core.clip_grad_value(tensors("clip_grad_value", parameters), clip_value)
