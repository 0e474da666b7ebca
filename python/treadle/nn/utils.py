"""Work on whole modules: folding batch norm away, clipping gradients, parameters as one vector."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np

from treadle._core import Tensor, concatenate
from treadle.checks import tensors
from treadle.nn.linear import Linear
from treadle.nn.norm import BatchNorm1d
from treadle.nn.parameter import Parameter
from treadle.optim.clip import clip_grad_norm_, clip_grad_value_

__all__ = ["clip_grad_norm_", "clip_grad_value_", "fuse_linear_bn", "parameters_to_vector", "vector_to_parameters"]


def fuse_linear_bn(linear: Linear, bn: BatchNorm1d) -> Linear:
    """One Linear that computes what `bn.eval()(linear(x))` does, for inference.

    Args:
        linear: (*, in) → (*, C).
        bn: Over C channels, with running statistics.

    Returns:
        A new Linear with a bias; both arguments are left alone.

    Raises:
        TypeError: Other layers than these.
        ValueError: Channels that differ, or no running statistics.

    Example:
        >>> fast = nn.utils.fuse_linear_bn(model[0], model[1])

    Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only inference".
    """
    if not isinstance(linear, Linear) or not isinstance(bn, BatchNorm1d):
        got = f"{type(linear).__name__} and {type(bn).__name__}"
        raise TypeError(f"fuse_linear_bn: expected a Linear and a BatchNorm1d, got {got}")
    if linear.out_features != bn.dim:
        raise ValueError(f"fuse_linear_bn: expected {linear.out_features} channels as the linear layer gives, got {bn.dim}")
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("fuse_linear_bn: expected running statistics, got a batch norm with track_running_stats=False")
    scale = 1 / np.sqrt(bn.running_var.numpy().astype(np.float64) + bn.eps)
    if bn.weight is not None:
        scale = scale * bn.weight.numpy()
    shift = -bn.running_mean.numpy() * scale
    if linear.bias is not None:
        shift = shift + linear.bias.numpy() * scale
    if bn.bias is not None:
        shift = shift + bn.bias.numpy()
    fused, dtype = copy.copy(linear), linear.weight.dtype
    fused.weight = Parameter(linear.weight.numpy() * scale[:, None], dtype=dtype)
    fused.bias = Parameter(shift, dtype=dtype)
    return fused


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All elements of all parameters, one after another.

    Args:
        parameters: At least one.

    Shape:
        (total,), the number of all elements.

    Example:
        >>> vector = nn.utils.parameters_to_vector(model.parameters())
    """
    return concatenate([p.reshape(-1) for p in tensors("parameters_to_vector", parameters)])


def vector_to_parameters(vector: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copies consecutive parts of a vector into parameters; the inverse of `parameters_to_vector`.

    Args:
        vector: Of shape (total,), the number of all elements.
        parameters: What is overwritten.

    Raises:
        ValueError: A vector of another length than all parameters together; nothing was changed.
    """
    targets = tensors("vector_to_parameters", parameters)
    total = sum(p.size for p in targets)
    if vector.shape != (total,):
        raise ValueError(f"vector_to_parameters: expected shape {(total,)}, got {vector.shape}")
    start = 0
    for p in targets:
        p.copy_(vector[start : start + p.size].reshape(p.shape))
        start += p.size
