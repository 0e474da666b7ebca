"""The normalising layers beside BatchNorm1d, by the names that treadle and PyTorch share."""

from __future__ import annotations

from typing import Any


def norm_layer(nn: Any, kind: str, shape: tuple[int, ...]) -> Any:
    """The layer of `nn` for inputs of `shape`."""
    channels = shape[1]
    if kind == "GroupNorm":
        return nn.GroupNorm(4, channels)
    if kind == "InstanceNorm1d":
        return nn.InstanceNorm1d(channels, affine=True)
    return getattr(nn, kind)(shape[-1] if kind in ("LayerNorm", "RMSNorm") else channels)
