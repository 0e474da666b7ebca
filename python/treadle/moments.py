"""Mean and standard deviation of columns of float64, whatever their size.

Invariant: no square overflows or vanishes, as each column is brought to numbers of at most 1 by a power of two, which is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["moments"]

_Array = npt.NDArray[Any]


def moments(columns: _Array, weight: _Array | None = None) -> tuple[_Array, _Array]:
    """Mean and standard deviation of each column (N, D), by weights of rows (N,); 1 for a constant, whose own may be rounding."""
    low, high = columns.min(axis=0), columns.max(axis=0)
    _, exponent = np.frexp(np.maximum(np.abs(low), np.abs(high)))
    scaled = np.ldexp(columns, -exponent)
    mean = np.average(scaled, axis=0, weights=weight)
    std = np.ldexp(np.sqrt(np.average(np.square(scaled - mean), axis=0, weights=weight)), exponent)
    return np.ldexp(mean, exponent), np.where((low < high) & (std > 0), std, 1.0)
