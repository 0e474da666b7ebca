"""Activations as layers. Every one takes a float Tensor of any shape and keeps the shape."""

from __future__ import annotations

from treadle import _core
from treadle._core import Tensor
from treadle.checks import number
from treadle.nn.module import Module

__all__ = ["ELU", "GELU", "LeakyReLU", "LogSoftmax", "ReLU", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh"]


class ReLU(Module):
    """max(x, 0).

    Shape:
        x (*), unchanged.

    Raises:
        TypeError: An input that is not a Tensor.

    Example:
        >>> nn.ReLU()(treadle.tensor([-1.0, 2.0]))
        tensor([0., 2.])

    Source: Nair & Hinton 2010, "Rectified linear units improve restricted Boltzmann machines".
    """

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.relu(x)


class LeakyReLU(Module):
    """x for x > 0, negative_slope·x elsewhere.

    Args:
        negative_slope: Slope below 0.

    Shape:
        x (*), unchanged.

    Example:
        >>> nn.LeakyReLU(0.5)(treadle.tensor([-1.0, 2.0]))
        tensor([-0.5,  2. ])

    Source: Maas et al. 2013, "Rectifier nonlinearities improve neural network acoustic models".
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = number("leaky_relu", "negative_slope", negative_slope)

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """x for x > 0, alpha·(eˣ − 1) elsewhere.

    Args:
        alpha: What the output tends to below 0, negated.

    Shape:
        x (*), unchanged.

    Example:
        >>> nn.ELU(alpha=2.0)(treadle.tensor([0.0, 1.0]))
        tensor([0., 1.])

    Source: Clevert et al. 2016, "Fast and accurate deep network learning by exponential linear units".
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = number("elu", "alpha", alpha)

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class GELU(Module):
    """x·Φ(x), with the exact normal distribution function Φ.

    Shape:
        x (*), unchanged.

    Source: Hendrycks & Gimpel 2016, "Gaussian error linear units".
    """

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.gelu(x)


class SiLU(Module):
    """x·sigmoid(x), also called swish.

    Shape:
        x (*), unchanged.

    Source: Elfwing et al. 2018, "Sigmoid-weighted linear units for neural network function approximation".
    """

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.silu(x)


class Sigmoid(Module):
    """1/(1 + e⁻ˣ).

    Shape:
        x (*), unchanged.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.sigmoid(x)


class Tanh(Module):
    """Hyperbolic tangent.

    Shape:
        x (*), unchanged.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.tanh(x)


class Softplus(Module):
    """log(1 + eˣ), without overflow.

    Shape:
        x (*), unchanged.

    Source: Dugas et al. 2001, "Incorporating second-order functional knowledge for better option pricing".
    """

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.softplus(x)


class Softmax(Module):
    """eˣ/Σeˣ along one axis, without overflow.

    Args:
        dim: The axis that sums to 1.

    Shape:
        x (*), unchanged.

    Raises:
        IndexError: No such axis.

    Example:
        >>> nn.Softmax()(treadle.zeros(1, 4))
        tensor([[0.25, 0.25, 0.25, 0.25]])
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """x − log Σeˣ along one axis; used as `Softmax`."""

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        return _core.log_softmax(x, self.dim)
