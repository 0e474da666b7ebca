"""Tensors from whatever exports DLPack, the protocol by which array libraries hand memory to each other.

Invariant: the tensor is a copy, so that nothing the other side does later reaches it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from treadle._core import Tensor, tensor
from treadle.nn import checks

__all__ = ["from_dlpack"]

# DLPack's number of plain memory, kDLCPU.
_CPU = 1


def from_dlpack(x: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor with the values of an array of another library, copied.

    Args:
        x: Anything with `__dlpack__` and `__dlpack_device__`, of DLPack 1.x or before: arrays of NumPy, PyTorch, JAX or
            pyarrow. Element types are kept or widened as `treadle.tensor` does.
        device: None or "cpu".
        copy: None or True; a tensor never shares memory that others can write to, so False is an error.

    Raises:
        TypeError: x does not export DLPack, or its element type has no counterpart.
        ValueError: Memory that is not the CPU's, another device asked for, or copy=False.

    Example:
        >>> treadle.from_dlpack(np.arange(3.0))
        tensor([0., 1., 2.], dtype=float64)

    Source: the Python array API standard, `from_dlpack`.
    """
    checks.cpu("from_dlpack", device)
    if copy is not None and not copy:
        raise ValueError("from_dlpack: expected copy None or True (a tensor never shares the memory of others), got False")
    if not (hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__")):
        raise TypeError(f"from_dlpack: expected an object with __dlpack__ and __dlpack_device__, got {type(x).__name__}")
    place = x.__dlpack_device__()
    if place[0] != _CPU:
        raise ValueError(f"from_dlpack: expected memory of the CPU, device (1, 0), got device {(int(place[0]), int(place[1]))}")
    try:
        array = np.from_dlpack(x)
    except RuntimeError as error:
        raise TypeError(f"from_dlpack: expected an element type that NumPy has, got {error}") from None
    return tensor(array)
