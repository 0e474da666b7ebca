"""Layers and losses as functions; what they take, give and raise is said at the layer of the same name in `treadle.nn`."""

from __future__ import annotations

from treadle import _core
from treadle._core import (
    Generator,
    Tensor,
    elu,
    gelu,
    leaky_relu,
    linear,
    log_sigmoid,
    log_softmax,
    one_hot,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)

__all__ = [
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "gelu",
    "group_norm",
    "huber_loss",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "mse_loss",
    "nll_loss",
    "one_hot",
    "relu",
    "rms_norm",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
]


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    unbiased: bool = False,
    mask: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """See `treadle.nn.BatchNorm1d`; running statistics that are given move in place when training.

    Args:
        momentum: Weight of this batch in the running statistics. Batches are not counted here, so None is for none that move.
        activation: None, or "relu" to apply max(y, 0) in the same sweep.

    Raises:
        ValueError: Another activation, or None as momentum of statistics that move; and as the layer.
    """
    if activation not in (None, "relu"):
        raise ValueError(f"batch_norm: expected activation None or 'relu', got {activation!r}")
    relu = activation == "relu"
    return _core.batch_norm(x, weight, bias, running_mean, running_var, None, training, momentum, eps, unbiased, mask, relu)


def layer_norm(
    x: Tensor, normalized_shape: tuple[int, ...], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """See `treadle.nn.LayerNorm`."""
    return _core.layer_norm(x, normalized_shape, weight, bias, eps)


def rms_norm(x: Tensor, normalized_shape: tuple[int, ...], weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """See `treadle.nn.RMSNorm`."""
    return _core.rms_norm(x, normalized_shape, weight, eps)


def group_norm(x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """See `treadle.nn.GroupNorm`."""
    return _core.group_norm(x, num_groups, weight, bias, eps)


def embedding(index: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """See `treadle.nn.Embedding`."""
    return _core.embedding(index, weight, padding_idx)


def dropout(x: Tensor, p: float = 0.5, training: bool = True, generator: Generator | None = None) -> Tensor:
    """See `treadle.nn.Dropout`."""
    return _core.dropout(x, p, training, generator)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """See `treadle.nn.CrossEntropyLoss`."""
    return _core.cross_entropy(logits, target, weight, reduction, label_smoothing, ignore_index)


def nll_loss(
    logp: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """See `treadle.nn.NLLLoss`."""
    return _core.nll_loss(logp, target, weight, reduction, ignore_index)


def mse_loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """See `treadle.nn.MSELoss`."""
    return _core.mse_loss(x, y, reduction)


def l1_loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """See `treadle.nn.L1Loss`."""
    return _core.l1_loss(x, y, reduction)


def huber_loss(x: Tensor, y: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """See `treadle.nn.HuberLoss`."""
    return _core.huber_loss(x, y, delta, reduction)


def binary_cross_entropy_with_logits(
    x: Tensor, y: Tensor, weight: Tensor | None = None, reduction: str = "mean", pos_weight: Tensor | None = None
) -> Tensor:
    """See `treadle.nn.BCEWithLogitsLoss`."""
    return _core.bce_with_logits(x, y, weight, pos_weight, reduction)
