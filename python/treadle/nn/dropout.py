"""Dropout."""

from __future__ import annotations

from treadle import _core
from treadle._core import Generator, Tensor
from treadle.checks import probability
from treadle.nn.module import Module

__all__ = ["Dropout"]


class Dropout(Module):
    """In training, zeroes elements with probability p and scales the others by 1/(1 − p); otherwise y = x.

    Args:
        p: Probability of zeroing, in [0, 1].
        generator: What is drawn from; None is the default generator.

    Shape:
        x (*), unchanged.

    Raises:
        ValueError: p outside [0, 1].
        TypeError: An input that is not a Tensor.

    Example:
        >>> nn.Dropout(0.1, generator=treadle.Generator(0))(treadle.ones(32, 64)).shape
        (32, 64)

    Source: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """

    def __init__(self, p: float = 0.5, *, generator: Generator | None = None) -> None:
        super().__init__()
        self.p = probability("dropout", "p", p)
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.dropout(x, self.p, self.training, self.generator)

    def extra_repr(self) -> str:
        return f"p={self.p}"
