"""Activations as layers. Every one keeps the shape of its input."""

from __future__ import annotations

from treadle import _core
from treadle._core import Tensor
from treadle.nn.module import Module

__all__ = ["ELU", "GELU", "LeakyReLU", "LogSoftmax", "ReLU", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh"]


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.relu(x)


class LeakyReLU(Module):
    """x for x > 0, negative_slope·x elsewhere."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """x for x > 0, alpha·(eˣ − 1) elsewhere (Clevert et al. 2016)."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class GELU(Module):
    """x·Φ(x), with the exact normal distribution function (Hendrycks & Gimpel 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.gelu(x)


class SiLU(Module):
    """x·sigmoid(x), also called swish (Elfwing et al. 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.silu(x)


class Sigmoid(Module):
    """1/(1 + e⁻ˣ)."""

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.sigmoid(x)


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.tanh(x)


class Softplus(Module):
    """log(1 + eˣ), without overflow."""

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.softplus(x)


class Softmax(Module):
    """eˣ/Σeˣ along `dim`."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """x − log Σeˣ along `dim`."""

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.log_softmax(x, self.dim)
