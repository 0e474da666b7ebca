"""Networks that are ready to train."""

from __future__ import annotations

from collections.abc import Callable

from treadle import nn
from treadle._core import Tensor
from treadle.checks import at_least

__all__ = ["MLP", "MLPResNet"]


class MLP(nn.Module):
    """A multilayer perceptron: Linear – BatchNorm1d – ReLU – Dropout for each hidden size, then Linear.

    Args:
        dim: Features of the input.
        hidden: Sizes of the hidden layers.
        out: Features of the output.
        drop_prob: Probability of dropout; 0 leaves it out.
        norm: Makes the normalisation of a hidden layer from its size.

    Shape:
        x (N, dim) → (N, out).

    Example:
        >>> models.MLP(20, (64, 64), 3)(treadle.randn(8, 20)).shape
        (8, 3)
    """

    def __init__(
        self,
        dim: int,
        hidden: tuple[int, ...],
        out: int,
        drop_prob: float = 0.0,
        norm: Callable[[int], nn.Module] = nn.BatchNorm1d,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(dim, size), norm(size), nn.ReLU()]
            layers += [nn.Dropout(drop_prob)] if drop_prob else []
            dim = size
        self.layers = nn.Sequential(*layers, nn.Linear(dim, out))

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim) → (N, out)."""
        out: Tensor = self.layers(x)
        return out


def _block(hidden_dim: int, norm: Callable[[int], nn.Module], drop_prob: float) -> nn.Module:
    half = hidden_dim // 2
    inner = nn.Sequential(
        nn.Linear(hidden_dim, half), norm(half), nn.ReLU(), nn.Dropout(drop_prob), nn.Linear(half, hidden_dim), norm(hidden_dim)
    )
    return nn.Sequential(nn.Residual(inner), nn.ReLU())


class MLPResNet(nn.Module):
    """A residual MLP: Linear – ReLU, blocks, Linear.

    A block is Residual(Linear(h, h/2) – norm – ReLU – Dropout – Linear(h/2, h) – norm) – ReLU.

    Args:
        dim: Features of the input.
        hidden_dim: Size h of the hidden layers, at least 2.
        num_blocks: How many blocks.
        num_classes: Features of the output.
        norm: Makes a normalisation layer from its size.
        drop_prob: Probability of dropout within a block.

    Shape:
        x (N, dim) → (N, num_classes).

    Example:
        >>> models.MLPResNet(64)(treadle.randn(32, 64)).shape
        (32, 10)

    Source: He et al. 2016, "Deep residual learning for image recognition", over vectors instead of images.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int = 100,
        num_blocks: int = 3,
        num_classes: int = 10,
        norm: Callable[[int], nn.Module] = nn.BatchNorm1d,
        drop_prob: float = 0.1,
    ) -> None:
        super().__init__()
        hidden_dim = at_least("mlp_resnet", "hidden_dim", hidden_dim, 2)
        num_blocks = at_least("mlp_resnet", "num_blocks", num_blocks, 0)
        blocks = [_block(hidden_dim, norm, drop_prob) for _ in range(num_blocks)]
        self.layers = nn.Sequential(nn.Linear(dim, hidden_dim), nn.ReLU(), *blocks, nn.Linear(hidden_dim, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim) → (N, num_classes)."""
        out: Tensor = self.layers(x)
        return out
