"""Tensors from whatever exports DLPack, the protocol by which array libraries hand memory to each other.

Invariant: treadle never writes to the memory of others, and keeps it for as long as a tensor lies there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from treadle import checks
from treadle._core import Tensor, shared, tensor

__all__ = ["from_dlpack"]

# DLPack's number of plain memory, kDLCPU.
_CPU = 1


def from_dlpack(x: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor with the values of an array of another library, in the same memory where that can be.

    Memory is shared if its elements are float32, float64, int64 or uint8 that lie whole elements apart. Operations and in-place
    updates of the tensor never write to it; what others write there later shows in the tensor, so they should not while a
    graph with it waits for its backward. `treadle.tensor` always copies.

    Args:
        x: Anything with `__dlpack__` and `__dlpack_device__`, of DLPack 1.x or before: arrays of NumPy, PyTorch, JAX or
            pyarrow. Element types are kept or widened as `treadle.tensor` does.
        device: None or "cpu".
        copy: Whether to copy: None where it must be, True always, False never.

    Raises:
        TypeError: x does not export DLPack, or its element type has no counterpart.
        ValueError: Memory that is not the CPU's, another device asked for, or copy=False where only a copy would do.

    Example:
        >>> array = np.arange(3.0)
        >>> treadle.from_dlpack(array)
        tensor([0., 1., 2.], dtype=float64)

    Source: the Python array API standard, `from_dlpack`.
    """
    checks.cpu("from_dlpack", device)
    if not (hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__")):
        raise TypeError(f"from_dlpack: expected an object with __dlpack__ and __dlpack_device__, got {type(x).__name__}")
    place = x.__dlpack_device__()
    if place[0] != _CPU:
        raise ValueError(f"from_dlpack: expected memory of the CPU, device (1, 0), got device {(int(place[0]), int(place[1]))}")
    try:
        array = np.from_dlpack(x)
    except (RuntimeError, BufferError) as error:
        kind = f"{type(x).__module__.partition('.')[0]}.{type(x).__name__} of {getattr(x, 'dtype', 'an unknown type')}"
        raise TypeError(f"from_dlpack: expected memory that NumPy can read, got {kind}: {error}") from error
    found = None if copy else shared(array)
    if found is None and copy is not None and not copy:
        raise ValueError(f"from_dlpack: expected memory that a tensor can share, got {array.dtype} with strides {array.strides}")
    return tensor(array) if found is None else found
