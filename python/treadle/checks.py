"""Checks of arguments: `op: expected …, got …`, before anything is built or changed."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any

import numpy as np

from treadle import _core
from treadle._core import DType, Tensor

__all__ = [
    "above_zero",
    "at_least",
    "channels",
    "cpu",
    "flag",
    "floating",
    "is_size",
    "listed",
    "not_negative",
    "number",
    "probability",
    "tensor",
    "tensors",
]


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


def number(op: str, name: str, value: Any) -> float:
    """`value` as a float."""
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__float__"):
        raise TypeError(f"{op}: expected {name} as a number, got {type(value).__name__}")
    return float(value)


def probability(op: str, name: str, value: Any) -> float:
    """`value` as a float in [0, 1]."""
    if not 0 <= number(op, name, value) <= 1:
        raise ValueError(f"{op}: expected {name} in [0, 1], got {value}")
    return float(value)


def not_negative(op: str, name: str, value: Any) -> float:
    """`value` as a float of at least 0."""
    if not number(op, name, value) >= 0:
        raise ValueError(f"{op}: expected {name} of at least 0, got {value}")
    return float(value)


def above_zero(op: str, name: str, value: Any) -> float:
    """`value` as a float above 0."""
    if not number(op, name, value) > 0:
        raise ValueError(f"{op}: expected {name} above 0, got {value}")
    return float(value)


def cpu(op: str, device: Any) -> None:
    """The device is None or "cpu"."""
    if device is not None and str(device) != "cpu":
        raise ValueError(f'{op}: expected device None or "cpu" (treadle runs on the CPU), got {device!r}')


def flag(op: str, name: str, value: Any) -> bool:
    """`value` as a bool; what is only true or false where it is asked for, such as a generator, stands in the wrong place."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{op}: expected {name} as True or False, got {value!r}")
    return bool(value)


def floating(op: str, dtype: Any) -> DType:
    """`dtype` as float32 or float64."""
    found = _core.zeros((), dtype=dtype).dtype
    if not found.is_floating_point:
        raise TypeError(f"{op}: expected dtype float32 or float64, got {found.name}")
    return found


def tensor(op: str, x: Any) -> Tensor:
    """`x`, which is a Tensor."""
    return _core._expect_tensor(op, x)


def is_size(value: Any) -> bool:
    """Whether `value` is a whole number of at least 1, of Python or NumPy."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def listed(op: str, parameters: Any) -> list[Any]:
    """Parameters in a list; one tensor is a list of itself, not of its rows."""
    if isinstance(parameters, Tensor):
        return [parameters]
    model = hasattr(parameters, "parameters")
    if model or not isinstance(parameters, Iterable):
        how = "; give it those of the model, model.parameters()" if model else ""
        raise TypeError(f"{op}: expected parameters, got {type(parameters).__name__}{how}")
    return list(parameters)


def tensors(op: str, parameters: Any) -> list[Tensor]:
    """`listed`, of tensors alone."""
    found = listed(op, parameters)
    for p in found:
        if not isinstance(p, Tensor):
            raise TypeError(f"{op}: expected parameters, got {type(p).__name__}")
    return found
