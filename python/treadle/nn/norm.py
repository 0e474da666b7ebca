"""Normalisation layers. Each forward is one call into the core."""

from __future__ import annotations

from typing import Any

from treadle import _core
from treadle._core import Tensor
from treadle.checks import above_zero, at_least, channels, cpu, floating, probability
from treadle.nn.module import Module
from treadle.nn.parameter import Buffer, Parameter

__all__ = ["BatchNorm1d", "GroupNorm", "LayerNorm", "LayerNorm1d", "RMSNorm"]


class BatchNorm1d(Module):
    """Normalises each channel over the batch: y = weight·(x − mean)/√(var + eps) + bias.

    In training, mean and (biased) variance are those of the batch, gradients flow through them, and the running statistics
    move in the same call: running ← (1 − momentum)·running + momentum·batch. In evaluation the running statistics are used.
    What a forward used decides its backward, whatever mode is set in between.

    Args:
        dim: Number of channels C.
        eps: Added to the variance; above 0.
        momentum: Weight of the new batch in the running statistics, in [0, 1]; None averages over all batches.
        device: None or "cpu".
        dtype: float32 or float64, of parameters and running statistics.
        affine: Whether weight and bias are learned; without them they are 1 and 0.
        track_running_stats: Whether running statistics are kept; without them the batch's own are used in evaluation too.
        unbiased: Whether the running variance takes n/(n − 1) times the batch variance, as PyTorch's does.

    Shape:
        x (N, C) or (N, C, L), with statistics over N and L, in any memory layout; the output has the shape of x.
        mask, optional: bool of shape (N,) or (N, L); only kept positions count, the others are returned as zeros.
        weight, bias, running_mean, running_var: (C,); num_batches_tracked: int64 scalar.

    Raises:
        ValueError: A dim, eps, momentum or device outside what is said above; in forward, another number of channels or
            dimensions, or one value per channel in training; nothing has moved then.
        TypeError: A dtype or an input that is not float32 or float64; an input that is not a Tensor.

    Warns:
        RuntimeWarning: Batch statistics that are not finite; the running ones keep their last finite value.

    Mixed types follow NumPy: a float64 input into a float32 layer gives a float64 output.

    Example:
        >>> bn = nn.BatchNorm1d(64)
        >>> y = bn(treadle.randn(32, 64))
        >>> bn.eval()(treadle.randn(1, 64)).shape
        (1, 64)

    Source: Ioffe & Szegedy 2015, "Batch normalization: accelerating deep network training by reducing internal covariate shift".
    """

    def __init__(
        self,
        dim: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        device: str | None = None,
        dtype: Any = "float32",
        *,
        affine: bool = True,
        track_running_stats: bool = True,
        unbiased: bool = False,
    ) -> None:
        super().__init__()
        self.dim = at_least("batch_norm", "dim", dim, 1)
        self.eps = above_zero("batch_norm", "eps", eps)
        self.momentum = None if momentum is None else probability("batch_norm", "momentum", momentum)
        self.affine, self.track_running_stats, self.unbiased = affine, track_running_stats, unbiased
        cpu("batch_norm", device)
        dtype, tracked = floating("batch_norm", dtype), track_running_stats
        self.weight = Parameter(_core.ones(dim, dtype=dtype)) if affine else None
        self.bias = Parameter(_core.zeros(dim, dtype=dtype)) if affine else None
        self.running_mean = Buffer(_core.zeros(dim, dtype=dtype)) if tracked else None
        self.running_var = Buffer(_core.ones(dim, dtype=dtype)) if tracked else None
        self.num_batches_tracked = Buffer(_core.zeros((), dtype="int64")) if tracked else None

    def reset_running_stats(self) -> None:
        """Sets the running mean to 0, the running variance to 1 and the count of batches to 0."""
        for buffer, value in ((self.running_mean, 0), (self.running_var, 1), (self.num_batches_tracked, 0)):
            if buffer is not None:
                buffer.copy_(value)

    def reset_parameters(self) -> None:
        """Resets the running statistics, and weight to 1 and bias to 0."""
        self.reset_running_stats()
        for parameter, value in ((self.weight, 1), (self.bias, 0)):
            if parameter is not None:
                parameter.copy_(value)

    def forward(self, x: Tensor, mask: Tensor | None = None, relu: bool = False) -> Tensor:
        """(N, C) or (N, C, L), of the same shape. With `relu`, max(·, 0) in the same sweep: `Sequential` asks for it where a
        ReLU follows."""
        if self.weight is None and self.running_mean is None:
            channels("batch_norm", x, self.dim)
        return _core.batch_norm(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.num_batches_tracked,
            self.training,
            self.momentum,
            self.eps,
            self.unbiased,
            mask,
            relu,
        )

    def extra_repr(self) -> str:
        unbiased = ", unbiased=True" if self.unbiased else ""
        tracked = f"affine={self.affine}, track_running_stats={self.track_running_stats}"
        return f"{self.dim}, eps={self.eps}, momentum={self.momentum}, {tracked}{unbiased}"


class LayerNorm(Module):
    """Normalises each example over its trailing axes: y = weight·(x − mean)/√(var + eps) + bias.

    Args:
        normalized_shape: Sizes of the trailing axes, or the size of the last one.
        eps: Added to the variance.
        elementwise_affine: Whether weight and bias are learned.
        bias: Whether there is a bias beside the weight.
        device: None or "cpu".
        dtype: float32 or float64.

    Shape:
        x (*, *normalized_shape), unchanged; weight, bias: normalized_shape.

    Raises:
        ValueError: A size below 1, eps not above 0, or trailing axes of other sizes.

    Example:
        >>> nn.LayerNorm(64)(treadle.randn(32, 64)).shape
        (32, 64)

    Source: Ba, Kiros & Hinton 2016, "Layer normalization".
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...] | list[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        sizes = normalized_shape if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
        self.normalized_shape = tuple(at_least("layer_norm", "normalized_shape", n, 1) for n in sizes)
        self.eps = above_zero("layer_norm", "eps", eps)
        self.weight = Parameter(_core.ones(self.normalized_shape, dtype=dtype, device=device)) if elementwise_affine else None
        with_bias = elementwise_affine and bias
        self.bias = Parameter(_core.zeros(self.normalized_shape, dtype=dtype, device=device)) if with_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(*, *normalized_shape), unchanged."""
        return _core.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"


class LayerNorm1d(LayerNorm):
    """`LayerNorm` over the last axis of (N, dim), under the name it has in course material."""

    def __init__(self, dim: int, eps: float = 1e-5, device: str | None = None, dtype: Any = "float32") -> None:
        super().__init__(dim, eps, device=device, dtype=dtype)


class RMSNorm(Module):
    """y = weight·x/√(mean(x²) + eps) over the trailing axes.

    Args:
        normalized_shape: Sizes of the trailing axes, or the size of the last one.
        eps: Added to the mean square.
        device: None or "cpu".
        dtype: float32 or float64.

    Shape:
        x (*, *normalized_shape), unchanged; weight: normalized_shape.

    Raises:
        ValueError: A size below 1, eps not above 0, or trailing axes of other sizes.

    Example:
        >>> nn.RMSNorm(64)(treadle.randn(32, 64)).shape
        (32, 64)

    Source: Zhang & Sennrich 2019, "Root mean square layer normalization".
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...] | list[int],
        eps: float = 1e-6,
        device: str | None = None,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        sizes = normalized_shape if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
        self.normalized_shape = tuple(at_least("rms_norm", "normalized_shape", n, 1) for n in sizes)
        self.eps = above_zero("rms_norm", "eps", eps)
        self.weight = Parameter(_core.ones(self.normalized_shape, dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """(*, *normalized_shape), unchanged."""
        return _core.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class GroupNorm(Module):
    """Normalises each example over groups of channels.

    Args:
        num_groups: Number of equal groups the channels are divided into.
        num_channels: Number of channels C, a multiple of `num_groups`.
        eps: Added to the variance.
        affine: Whether weight and bias are learned, one of each per channel.
        device: None or "cpu".
        dtype: float32 or float64.

    Shape:
        x (N, C, *), unchanged; weight, bias: (C,).

    Raises:
        ValueError: A number below 1, channels that groups do not divide, eps not above 0, or other channels.

    Example:
        >>> nn.GroupNorm(4, 64)(treadle.randn(32, 64, 10)).shape
        (32, 64, 10)

    Source: Wu & He 2018, "Group normalization".
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: str | None = None,
        dtype: Any = "float32",
    ) -> None:
        super().__init__()
        self.num_groups = at_least("group_norm", "num_groups", num_groups, 1)
        self.num_channels = at_least("group_norm", "num_channels", num_channels, 1)
        if num_channels % num_groups:
            raise ValueError(f"group_norm: expected a multiple of {num_groups} groups, got {num_channels} channels")
        self.eps = above_zero("group_norm", "eps", eps)
        self.weight = Parameter(_core.ones(num_channels, dtype=dtype, device=device)) if affine else None
        self.bias = Parameter(_core.zeros(num_channels, dtype=dtype, device=device)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *), unchanged."""
        if self.weight is None:
            channels("group_norm", x, self.num_channels)
        return _core.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.weight is not None}"
