"""The IDX format of MNIST: a magic number that names the type and the number of axes, the sizes, and the elements."""

from __future__ import annotations

import gzip
import math
import zlib
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle._core import Tensor

__all__ = ["read_idx"]

_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: str | PathLike[str]) -> Tensor:
    """Reads an IDX file, compressed with gzip or not.

    Args:
        path: The file.

    Returns:
        A tensor of the file's shape: bytes as uint8, other integers as int64, floats as they are.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not in the format, cut short or too long; sizes it claims cost no memory.

    Example:
        >>> read_idx("train-images-idx3-ubyte.gz").shape
        (60000, 28, 28)

    Source: LeCun et al., "The MNIST database".
    """
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if compressed else open(path, "rb") as file:
            return Tensor(_parse(path, file))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"read_idx: expected a whole gzip file, got a damaged one in {path} ({error})") from None


def _parse(path: str | PathLike[str], file: Any) -> npt.NDArray[Any]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not 1 <= magic[3] <= 8:
        raise ValueError(f"read_idx: expected an IDX file, got first bytes {magic.hex(' ') or 'none'} in {path}")
    dtype, ndim = np.dtype(_TYPES[magic[2]]), magic[3]
    sizes = file.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise ValueError(f"read_idx: expected {ndim} sizes, got a file cut short in {path}")
    shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
    if math.prod(max(n, 1) for n in shape) >= 2**60:
        raise ValueError(f"read_idx: expected a shape that fits in memory, got {shape} in {path}")
    wanted = math.prod(shape) * dtype.itemsize
    data = _read(file, wanted)
    if len(data) != wanted:
        more = "more than " if len(data) > wanted else ""
        raise ValueError(f"read_idx: expected {wanted} bytes for shape {shape}, got {more}{min(len(data), wanted)} in {path}")
    array = np.frombuffer(data, dtype).reshape(shape)
    return array.astype(np.int64) if dtype.kind == "i" else array.astype(dtype.newbyteorder("="))


def _read(file: Any, wanted: int) -> bytes:
    """At most one byte more than wanted, in pieces, so that a false claim costs no memory."""
    parts, left = [], wanted + 1
    while left > 0 and (part := file.read(min(left, 1 << 22))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
