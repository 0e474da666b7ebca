"""Affine maps, embeddings, and the two layers that only pass on: `Identity` and `Flatten`."""

from __future__ import annotations

import math
from typing import Any

from treadle import _core, init
from treadle._core import Generator, Tensor
from treadle.checks import at_least, tensor
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter

__all__ = ["Embedding", "Flatten", "Identity", "Linear"]


class Linear(Module):
    """y = x Wᵀ + b.

    Args:
        in_features: Size of the last axis of the input.
        out_features: Size of the last axis of the output.
        bias: Whether b is learned; without it there is none.
        device: None or "cpu".
        dtype: float32 or float64.
        generator: What the initial values are drawn from; None is the default generator.

    Shape:
        x (*, in_features) → (*, out_features); weight (out_features, in_features), bias (out_features,).

    Raises:
        ValueError: A size below 1, or an input whose last axis is not in_features.
        TypeError: An input that is not a Tensor.

    Example:
        >>> nn.Linear(784, 100)(treadle.randn(32, 784)).shape
        (32, 100)

    Initial values are uniform within ±1/√in_features, as PyTorch draws them.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = "float32",
        *,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.in_features = at_least("linear", "in_features", in_features, 1)
        self.out_features = at_least("linear", "out_features", out_features, 1)
        bound = 1 / math.sqrt(in_features)
        draw: dict[str, Any] = {"low": -bound, "high": bound, "dtype": dtype, "device": device, "generator": generator}
        self.weight = Parameter(init.rand(out_features, in_features, **draw))
        self.bias = Parameter(init.rand(out_features, **draw)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(*, in_features) → (*, out_features)."""
        return _core.linear(x, self.weight, self.bias)

    def forward_relu(self, x: Tensor) -> Tensor:
        """max(forward(x), 0) as one operation, of which only the output is kept: what `Sequential` calls where a ReLU follows."""
        return _core.linear_relu(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """Rows of a learned table.

    Args:
        num_embeddings: Rows of the table.
        embedding_dim: Size of a row.
        padding_idx: A row that starts at zero and gets no gradient; negative ones count from the end.
        device: None or "cpu".
        dtype: float32 or float64.
        generator: What the initial values are drawn from, N(0, 1); None is the default generator.

    Shape:
        index (*) of int64 → (*, embedding_dim); weight (num_embeddings, embedding_dim).

    Raises:
        ValueError: A size below 1, or a padding_idx outside the table.
        TypeError: An index that is not an int64 Tensor.
        IndexError: An index outside the table.

    Example:
        >>> nn.Embedding(1000, 16)(treadle.tensor([3, 999])).shape
        (2, 16)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        device: str | None = None,
        dtype: Any = "float32",
        *,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = at_least("embedding", "num_embeddings", num_embeddings, 1)
        self.embedding_dim = at_least("embedding", "embedding_dim", embedding_dim, 1)
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"embedding: expected padding_idx within {num_embeddings} rows, got {padding_idx}")
        self.padding_idx = padding_idx
        weight = init.randn(num_embeddings, embedding_dim, dtype=dtype, device=device, generator=generator)
        if padding_idx is not None:
            weight[padding_idx] = 0.0
        self.weight = Parameter(weight)

    def forward(self, index: Tensor) -> Tensor:
        """(*) → (*, embedding_dim)."""
        return _core.embedding(tensor("embedding", index), self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class Identity(Module):
    """y = x.

    Shape:
        x (*), unchanged.

    Raises:
        TypeError: An input that is not a Tensor.

    Example:
        >>> norm = nn.BatchNorm1d(64) if normalise else nn.Identity()
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, unchanged."""
        return tensor("identity", x)


class Flatten(Module):
    """Joins all axes from `start_dim` to `end_dim` into one; by default all but the batch axis.

    Args:
        start_dim: First axis that is joined.
        end_dim: Last axis that is joined.

    Shape:
        x (N, *) → (N, product of the rest).

    Raises:
        TypeError: An input that is not a Tensor.

    Example:
        >>> nn.Flatten()(treadle.zeros(8, 28, 28)).shape
        (8, 784)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        """(N, *) → (N, rest)."""
        return tensor("flatten", x).flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
