"""The numbers that every library works on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

DRAWN = 1 << 20


def normal(shape: tuple[int, ...], seed: int = 0) -> Any:
    """Normally distributed float32 of `shape`, the same in every library; from 2^20 numbers on they repeat."""
    size = math.prod(shape)
    drawn = np.random.default_rng(seed).standard_normal(min(size, DRAWN), dtype=np.float32)
    return (drawn if size <= DRAWN else np.resize(drawn, size)).reshape(shape)
