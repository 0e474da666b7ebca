"""Initial values of parameters.

Sizes are given as `ones(2, 3)` or `ones((2, 3))`. Every function takes the keywords `device` (None or "cpu"), `dtype`,
`requires_grad` and `generator` (what is drawn from; None: the default one, see `treadle.manual_seed`). Those that draw
nothing take `generator` too, so that one initialiser can stand in for another.
"""

from __future__ import annotations

import math
from typing import Any, TypedDict, Unpack

import numpy as np

from treadle import _core
from treadle._core import Generator, Tensor
from treadle.checks import at_least, floating

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


class Options(TypedDict, total=False):
    """The keywords that every function takes.

    Attributes:
        device: None or "cpu".
        dtype: Element type.
        requires_grad: Whether gradients are accumulated in `grad`.
        generator: What is drawn from; None is the default one.
    """

    device: str | None
    dtype: Any
    requires_grad: bool
    generator: Generator | None


def _sizes(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape


def constant(
    *shape: Any,
    c: float = 1.0,
    device: str | None = None,
    dtype: Any = "float32",
    requires_grad: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """The value `c` everywhere.

    Example:
        >>> init.constant(2, 3, c=0.5).shape
        (2, 3)
    """
    return _core.full(_sizes(shape), float(c), dtype=dtype, requires_grad=requires_grad, device=device)


def ones(*shape: Any, **options: Unpack[Options]) -> Tensor:
    """Ones.

    Example:
        >>> init.ones(64, device="cpu").shape
        (64,)
    """
    return constant(*shape, c=1.0, **options)


def zeros(*shape: Any, **options: Unpack[Options]) -> Tensor:
    """Zeros; used as `ones`."""
    return constant(*shape, c=0.0, **options)


def rand(
    *shape: Any,
    low: float = 0.0,
    high: float = 1.0,
    device: str | None = None,
    dtype: Any = "float32",
    requires_grad: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Uniform in [low, high).

    Example:
        >>> init.rand(2, 3, low=-1, high=1).shape
        (2, 3)
    """
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
    """Normally distributed.

    Example:
        >>> init.randn(2, 3, std=0.02).shape
        (2, 3)
    """
    return _core.normal(_sizes(shape), mean, std, generator, dtype, requires_grad, device)


def randb(
    *shape: Any,
    p: float = 0.5,
    device: str | None = None,
    dtype: Any = "float32",
    requires_grad: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """1 with probability p, otherwise 0.

    Raises:
        ValueError: p outside [0, 1].
    """
    return Tensor(_core.bernoulli(_sizes(shape), p, generator, dtype, device), requires_grad=requires_grad)


def one_hot(
    n: int,
    index: Any,
    device: str | None = None,
    dtype: Any = "float32",
    requires_grad: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """A row of `n` zeros with a one, per class number in `index`.

    Shape:
        index (*) of int64 → (*, n).

    Raises:
        IndexError: A class number outside [0, n).

    Example:
        >>> init.one_hot(3, treadle.tensor([0, 2])).shape
        (2, 3)
    """
    return Tensor(_core.one_hot(index, n, dtype), requires_grad=requires_grad, device=device)


def _fans(op: str, fan_in: int, fan_out: int, shape: Shape | None) -> tuple[int, ...]:
    fans = at_least(op, "fan_in", fan_in, 1), at_least(op, "fan_out", fan_out, 1)
    return fans if shape is None else tuple(shape)


def xavier_uniform(fan_in: int, fan_out: int, shape: Shape | None = None, gain: float = 1.0, **options: Unpack[Options]) -> Tensor:
    """Uniform within ±gain·√(6/(fan_in + fan_out)), so that values and gradients keep their scale through linear layers.

    Args:
        fan_in: Inputs of a unit.
        fan_out: Outputs a unit feeds.
        shape: The result's; None is (fan_in, fan_out).
        gain: Factor on the bound.

    Raises:
        ValueError: A fan below 1.

    Example:
        >>> init.xavier_uniform(784, 100, shape=(100, 784)).shape
        (100, 784)

    Source: Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks".
    """
    sizes = _fans("xavier_uniform", fan_in, fan_out, shape)
    bound = gain * math.sqrt(6 / (fan_in + fan_out))
    return rand(*sizes, low=-bound, high=bound, **options)


def xavier_normal(fan_in: int, fan_out: int, shape: Shape | None = None, gain: float = 1.0, **options: Unpack[Options]) -> Tensor:
    """Normal with standard deviation gain·√(2/(fan_in + fan_out)); used as `xavier_uniform`, from the same source."""
    sizes = _fans("xavier_normal", fan_in, fan_out, shape)
    return randn(*sizes, std=gain * math.sqrt(2 / (fan_in + fan_out)), **options)


_GAINS = {"relu": math.sqrt(2), "linear": 1.0, "tanh": 5 / 3, "sigmoid": 1.0, "selu": 0.75}


def _gain(op: str, nonlinearity: str) -> float:
    if nonlinearity not in _GAINS:
        raise ValueError(f"{op}: expected a nonlinearity among {sorted(_GAINS)}, got {nonlinearity!r}")
    return _GAINS[nonlinearity]


def kaiming_uniform(
    fan_in: int, fan_out: int, shape: Shape | None = None, nonlinearity: str = "relu", **options: Unpack[Options]
) -> Tensor:
    """Uniform within ±gain·√(3/fan_in), so that values keep their scale through layers that end in the nonlinearity.

    Args:
        fan_in: Inputs of a unit.
        fan_out: Outputs a unit feeds; only for the shape.
        shape: The result's; None is (fan_in, fan_out).
        nonlinearity: "relu", "linear", "tanh", "sigmoid" or "selu"; it sets the gain (√2 for "relu").

    Raises:
        ValueError: A fan below 1 or another nonlinearity.

    Example:
        >>> init.kaiming_uniform(784, 100).shape
        (784, 100)

    Source: He et al. 2015, "Delving deep into rectifiers".
    """
    sizes = _fans("kaiming_uniform", fan_in, fan_out, shape)
    bound = _gain("kaiming_uniform", nonlinearity) * math.sqrt(3 / fan_in)
    return rand(*sizes, low=-bound, high=bound, **options)


def kaiming_normal(
    fan_in: int, fan_out: int, shape: Shape | None = None, nonlinearity: str = "relu", **options: Unpack[Options]
) -> Tensor:
    """Normal with standard deviation gain/√fan_in; used as `kaiming_uniform`, from the same source."""
    sizes = _fans("kaiming_normal", fan_in, fan_out, shape)
    return randn(*sizes, std=_gain("kaiming_normal", nonlinearity) / math.sqrt(fan_in), **options)


def orthogonal(
    shape: Shape,
    gain: float = 1.0,
    device: str | None = None,
    dtype: Any = "float32",
    requires_grad: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Rows or columns (whichever are fewer) orthonormal, times `gain`.

    Args:
        shape: At least two sizes; all after the first are taken together as columns.
        gain: Factor on the result.

    Raises:
        ValueError: Fewer than two sizes, or one below 1.
        TypeError: A dtype other than float32 and float64.

    Example:
        >>> init.orthogonal((64, 32), gain=2**0.5).shape
        (64, 32)

    Source: Saxe et al. 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks".
    """
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"orthogonal: expected at least 2 sizes of at least 1, got shape {tuple(shape)}")
    dtype, rows, columns = floating("orthogonal", dtype), shape[0], math.prod(shape[1:])
    draws = randn(max(rows, columns), min(rows, columns), dtype="float64", generator=generator).numpy()
    q, r = np.linalg.qr(draws)
    # With the signs of r's diagonal taken out, q is uniform over the orthogonal matrices.
    q = q * np.sign(np.diag(r))
    return Tensor((gain * (q if rows >= columns else q.T)).reshape(shape), dtype, requires_grad, device)
