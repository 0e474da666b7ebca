"""Initial values of parameters.

Every function takes sizes (`ones(2, 3)` or `ones((2, 3))`) or fans, and the keywords `device`, `dtype`, `requires_grad` and,
where values are drawn, `generator` (None: the default one, see `treadle.manual_seed`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from treadle import _core
from treadle._core import Generator, Tensor

__all__ = [
    "constant",
    "kaiming_normal",
    "kaiming_uniform",
    "one_hot",
    "ones",
    "orthogonal",
    "rand",
    "randb",
    "randn",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

Shape = tuple[int, ...] | list[int]


def _sizes(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape


def constant(*shape: Any, c: float = 1.0, device: str | None = None, dtype: Any = "float32", requires_grad: bool = False) -> Tensor:
    """The value `c` everywhere."""
    return _core.full(_sizes(shape), float(c), dtype=dtype, requires_grad=requires_grad, device=device)


def ones(*shape: Any, device: str | None = None, dtype: Any = "float32", requires_grad: bool = False) -> Tensor:
    """Ones."""
    return _core.ones(*shape, dtype=dtype, requires_grad=requires_grad, device=device)


def zeros(*shape: Any, device: str | None = None, dtype: Any = "float32", requires_grad: bool = False) -> Tensor:
    """Zeros."""
    return _core.zeros(*shape, dtype=dtype, requires_grad=requires_grad, device=device)


def rand(
    *shape: Any,
    low: float = 0.0,
    high: float = 1.0,
    device: str | None = None,
    dtype: Any = "float32",
    requires_grad: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Uniform in [low, high)."""
    return _core.uniform(_sizes(shape), low, high, generator, dtype, requires_grad, device)


def randn(
    *shape: Any,
    mean: float = 0.0,
    std: float = 1.0,
    device: str | None = None,
    dtype: Any = "float32",
    requires_grad: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Normally distributed."""
    return _core.normal(_sizes(shape), mean, std, generator, dtype, requires_grad, device)


def randb(
    *shape: Any, p: float = 0.5, device: str | None = None, dtype: Any = "float32", generator: Generator | None = None
) -> Tensor:
    """1 with probability p, otherwise 0."""
    return _core.bernoulli(_sizes(shape), p, generator, dtype, device)


def one_hot(n: int, index: Any, device: str | None = None, dtype: Any = "float32") -> Tensor:
    """A row of `n` zeros with a one per class number in `index`."""
    return _core.one_hot(index, n, dtype)


def _fans(op: str, fan_in: int, fan_out: int, shape: Shape | None) -> tuple[int, ...]:
    if fan_in < 1 or fan_out < 1:
        raise ValueError(f"{op}: expected fans of at least 1, got fan_in {fan_in} and fan_out {fan_out}")
    return (fan_in, fan_out) if shape is None else tuple(shape)


def xavier_uniform(fan_in: int, fan_out: int, shape: Shape | None = None, gain: float = 1.0, **kwargs: Any) -> Tensor:
    """Uniform within ±gain·√(6/(fan_in + fan_out)) (Glorot & Bengio 2010), of shape (fan_in, fan_out) unless `shape` is given."""
    sizes = _fans("xavier_uniform", fan_in, fan_out, shape)
    bound = gain * math.sqrt(6 / (fan_in + fan_out))
    return rand(*sizes, low=-bound, high=bound, **kwargs)


def xavier_normal(fan_in: int, fan_out: int, shape: Shape | None = None, gain: float = 1.0, **kwargs: Any) -> Tensor:
    """Normal with standard deviation gain·√(2/(fan_in + fan_out)) (Glorot & Bengio 2010)."""
    sizes = _fans("xavier_normal", fan_in, fan_out, shape)
    return randn(*sizes, std=gain * math.sqrt(2 / (fan_in + fan_out)), **kwargs)


_GAINS = {"relu": math.sqrt(2), "linear": 1.0, "tanh": 5 / 3, "sigmoid": 1.0, "selu": 0.75}


def _gain(op: str, nonlinearity: str) -> float:
    if nonlinearity not in _GAINS:
        raise ValueError(f"{op}: expected a nonlinearity among {sorted(_GAINS)}, got {nonlinearity!r}")
    return _GAINS[nonlinearity]


def kaiming_uniform(fan_in: int, fan_out: int, shape: Shape | None = None, nonlinearity: str = "relu", **kwargs: Any) -> Tensor:
    """Uniform within ±gain·√(3/fan_in) (He et al. 2015), of shape (fan_in, fan_out) unless `shape` is given."""
    sizes = _fans("kaiming_uniform", fan_in, fan_out, shape)
    bound = _gain("kaiming_uniform", nonlinearity) * math.sqrt(3 / fan_in)
    return rand(*sizes, low=-bound, high=bound, **kwargs)


def kaiming_normal(fan_in: int, fan_out: int, shape: Shape | None = None, nonlinearity: str = "relu", **kwargs: Any) -> Tensor:
    """Normal with standard deviation gain/√fan_in (He et al. 2015)."""
    sizes = _fans("kaiming_normal", fan_in, fan_out, shape)
    return randn(*sizes, std=_gain("kaiming_normal", nonlinearity) / math.sqrt(fan_in), **kwargs)


def orthogonal(*shape: Any, gain: float = 1.0, **kwargs: Any) -> Tensor:
    """Rows or columns (whichever are fewer) orthonormal, times `gain` (Saxe et al. 2014).

    Args:
        *shape: At least two sizes; all after the first are taken together as columns.

    Raises:
        ValueError: Fewer than two sizes.
    """
    sizes = _sizes(shape)
    if len(sizes) < 2:
        raise ValueError(f"orthogonal: expected at least 2 dimensions, got shape {sizes}")
    requires_grad, dtype = kwargs.pop("requires_grad", False), kwargs.pop("dtype", "float32")
    rows, columns = sizes[0], math.prod(sizes[1:])
    draws = randn(max(rows, columns), min(rows, columns), dtype="float64", **kwargs).numpy()
    q, r = np.linalg.qr(draws)
    q = q * np.sign(np.diag(r))
    return Tensor((gain * (q if rows >= columns else q.T)).reshape(sizes), dtype, requires_grad)
