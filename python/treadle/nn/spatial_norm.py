"""Siblings of `BatchNorm1d` that run on its kernels: over images, and over each example by itself."""

from __future__ import annotations

import warnings
from typing import Any

from treadle import _core
from treadle._core import Tensor
from treadle.autograd import no_grad
from treadle.nn.norm import BatchNorm1d

__all__ = ["BatchNorm2d", "InstanceNorm1d"]


class BatchNorm2d(BatchNorm1d):
    """`BatchNorm1d` over images: statistics over N, H and W. Arguments, buffers and state_dict as there.

    Shape:
        x (N, C, H, W), unchanged; weight, bias, running_mean, running_var: (C,).

    Raises:
        ValueError: An input or mask of another number of dimensions or channels, or one value per channel in training.

    Example:
        >>> nn.BatchNorm2d(16)(treadle.randn(8, 16, 28, 28)).shape
        (8, 16, 28, 28)
    """

    def forward(self, x: Tensor, mask: Tensor | None = None, relu: bool = False) -> Tensor:
        """(N, C, H, W), of the same shape; mask, optional: (N, H, W). With `relu`, max(·, 0) in the same sweep."""
        return super().forward(_planes(x), _flat(mask), relu).reshape(x.shape)


def _planes(x: Tensor) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError(f"batch_norm: expected a Tensor, got {type(x).__name__}")
    if x.ndim != 4:
        raise ValueError(f"batch_norm: expected shape (N, C, H, W), got {x.shape}")
    return x.flatten(2)


def _flat(mask: Any) -> Tensor | None:
    if mask is None:
        return None
    given = mask if isinstance(mask, Tensor) else Tensor(mask)
    if given.ndim != 3:
        raise ValueError(f"batch_norm: expected a mask (N, H, W), got shape {given.shape}")
    return given.flatten(1)


class InstanceNorm1d(BatchNorm1d):
    """Normalises each channel of each example over L: y = weight·(x − mean)/√(var + eps) + bias.

    Args:
        dim: Number of channels C.
        eps: Added to the variance; above 0.
        momentum: Weight of the new batch in the running statistics; None averages over all batches.
        device: None or "cpu".
        dtype: float32 or float64.
        affine: Whether weight and bias are learned.
        track_running_stats: Whether running means of the examples' means and (unbiased) variances are kept, and used in
            evaluation.

    Shape:
        x (N, C, L), unchanged; L of at least 2 where the example's own statistics are used.

    Raises:
        TypeError: An input that is not a Tensor.
        ValueError: An input of another number of dimensions or channels, a mask, or one value per channel where the
            example's own statistics are used.

    Warns:
        RuntimeWarning: Statistics that are not finite; the running ones keep their last finite value.

    Example:
        >>> nn.InstanceNorm1d(16)(treadle.randn(8, 16, 28)).shape
        (8, 16, 28)

    Source: Ulyanov et al. 2016, "Instance normalization: the missing ingredient for fast stylization".
    """

    def __init__(
        self,
        dim: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        device: str | None = None,
        dtype: Any = "float32",
        *,
        affine: bool = False,
        track_running_stats: bool = False,
    ) -> None:
        super().__init__(dim, eps, momentum, device, dtype, affine=affine, track_running_stats=track_running_stats, unbiased=True)

    def forward(self, x: Tensor, mask: Tensor | None = None, relu: bool = False) -> Tensor:
        """(N, C, L), of the same shape. With `relu`, max(·, 0)."""
        y = self._instances(x, mask)
        return y.relu() if relu else y

    def _instances(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            raise ValueError(f"instance_norm: expected no mask, got {type(mask).__name__}")
        if not isinstance(x, Tensor):
            raise TypeError(f"instance_norm: expected a Tensor, got {type(x).__name__}")
        if x.ndim != 3 or x.shape[1] != self.dim:
            raise ValueError(f"instance_norm: expected shape (N, {self.dim}, L), got {x.shape}")
        tracked = self.running_mean is not None
        if tracked and not self.training:
            return super().forward(x)
        if x.shape[2] < 2:
            raise ValueError(f"instance_norm: expected more than one value per channel, got shape {x.shape}")
        y = _core.group_norm(x, self.dim, self.weight, self.bias, self.eps)
        if tracked:
            self._track(x)
        return y

    def _track(self, x: Tensor) -> None:
        """Moves the running statistics: once where a checkpoint runs twice, not for an empty batch, to finite values only."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        if _core._is_recomputing() or x.size == 0:
            return
        with no_grad():
            self.num_batches_tracked.copy_(self.num_batches_tracked + 1)
            momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            mean, var = x.mean(2).mean(0), x.var(2, correction=1).mean(0)
            finite = mean.isfinite() & var.isfinite()
            for running, value in ((self.running_mean, mean), (self.running_var, var)):
                running.copy_(_core.where(finite, (1 - momentum) * running + momentum * value, running))
        broken = self.dim - int(finite.sum())
        if broken:
            warnings.warn(
                f"instance_norm: expected finite batch statistics, got non-finite ones in {broken} of {self.dim} channels; "
                "their running statistics keep their last finite value",
                RuntimeWarning,
                stacklevel=5,
            )
