"""Checks of arguments: `op: expected …, got …`, before anything is built or changed."""

from __future__ import annotations

from typing import Any

from treadle import _core
from treadle._core import DType, Tensor

__all__ = ["at_least", "channels", "cpu", "floating", "probability", "tensor"]


def at_least(op: str, name: str, value: Any, low: int) -> int:
    """`value` as an int of at least `low`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{op}: expected {name} as an int, got {type(value).__name__}")
    if value < low:
        raise ValueError(f"{op}: expected {name} of at least {low}, got {value}")
    return int(value)


def channels(op: str, x: Any, expected: int) -> None:
    """Axis 1 of `x`, where it is a Tensor that has one, is `expected` long. For layers that give the core no weight to compare."""
    if isinstance(x, Tensor) and x.ndim > 1 and x.shape[1] != expected:
        raise ValueError(f"{op}: expected {expected} channels, got {x.shape[1]} in shape {x.shape}")


def probability(op: str, name: str, value: float) -> float:
    """`value` as a float in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{op}: expected {name} in [0, 1], got {value}")
    return float(value)


def cpu(op: str, device: Any) -> None:
    """The device is None or "cpu"."""
    if device is not None and str(device) != "cpu":
        raise ValueError(f'{op}: expected device None or "cpu" (treadle runs on the CPU), got {device!r}')


def floating(op: str, dtype: Any) -> DType:
    """`dtype` as float32 or float64."""
    found = _core.zeros((), dtype=dtype).dtype
    if not found.is_floating_point:
        raise TypeError(f"{op}: expected dtype float32 or float64, got {found.name}")
    return found


def tensor(op: str, x: Any) -> Tensor:
    """`x`, which is a Tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: expected a Tensor, got {type(x).__name__}; wrap it with treadle.tensor(...)")
    return x
