"""What functions of arrays are in NumPy, by the names they have here; the tests against NumPy share it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

DTYPES = ["float32", "float64", "int64", "uint8", "bool"]
FLOATS = ["float32", "float64"]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def erf(x: np.ndarray) -> np.ndarray:
    """The error function, in the type of its argument."""
    return np.asarray(_erf(x), x.dtype)


UNARY: dict[str, Any] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "square": np.square,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + erf(x / math.sqrt(2))),
    "erf": erf,
    "softplus": lambda x: np.log1p(np.exp(x)),
    "log_sigmoid": lambda x: -np.log1p(np.exp(-x)),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
}
POSITIVE: dict[str, Any] = {
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
}

BINARY: dict[str, Any] = {
    "add": (np.add, DTYPES),
    "sub": (np.subtract, ["float32", "float64", "int64"]),
    "mul": (np.multiply, DTYPES),
    "maximum": (np.maximum, DTYPES),
    "minimum": (np.minimum, DTYPES),
    "less": (np.less, DTYPES),
    "less_equal": (np.less_equal, DTYPES),
    "greater": (np.greater, DTYPES),
    "greater_equal": (np.greater_equal, DTYPES),
    "equal": (np.equal, DTYPES),
    "not_equal": (np.not_equal, DTYPES),
    "logical_and": (np.bitwise_and, ["int64", "uint8", "bool"]),
    "logical_or": (np.bitwise_or, ["int64", "uint8", "bool"]),
    "logical_xor": (np.bitwise_xor, ["int64", "uint8", "bool"]),
}
