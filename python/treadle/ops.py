"""Operations as functions, the tensor first, also under the names of course material.

`summation`, `multiply`, `divide`, `power`, `negate`, their `_scalar` forms and `logsoftmax` are thin names on the same operations;
`reshape`, `transpose` and `logsumexp` have the arguments of course material, not those of the methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle import _core
from treadle._core import (
    Tensor,
    abs,
    add,
    all,
    any,
    argmax,
    argmin,
    broadcast_to,
    ceil,
    clip,
    concatenate,
    cos,
    div,
    elu,
    equal,
    erf,
    exp,
    expm1,
    flatten,
    flip,
    floor,
    floor_divide,
    gather,
    gelu,
    greater,
    greater_equal,
    index_add,
    isfinite,
    isinf,
    isnan,
    leaky_relu,
    less,
    less_equal,
    log,
    log1p,
    log_sigmoid,
    log_softmax,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    masked_fill,
    matmul,
    max,
    maximum,
    mean,
    min,
    minimum,
    mul,
    neg,
    not_equal,
    one_hot,
    permute,
    pow,
    prod,
    reciprocal,
    relu,
    remainder,
    round,
    rsqrt,
    sigmoid,
    sign,
    silu,
    sin,
    softmax,
    softplus,
    split,
    sqrt,
    square,
    squeeze,
    stack,
    std,
    sub,
    sum,
    swapaxes,
    take,
    tanh,
    unsqueeze,
    var,
    where,
)

__all__ = [
    "abs",
    "add",
    "add_scalar",
    "all",
    "any",
    "argmax",
    "argmin",
    "broadcast_to",
    "ceil",
    "clip",
    "concatenate",
    "cos",
    "div",
    "divide",
    "divide_scalar",
    "elu",
    "equal",
    "erf",
    "exp",
    "expm1",
    "flatten",
    "flip",
    "floor",
    "floor_divide",
    "gather",
    "gelu",
    "greater",
    "greater_equal",
    "index_add",
    "isfinite",
    "isinf",
    "isnan",
    "leaky_relu",
    "less",
    "less_equal",
    "log",
    "log1p",
    "log_sigmoid",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logsoftmax",
    "logsumexp",
    "masked_fill",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mul",
    "mul_scalar",
    "multiply",
    "neg",
    "negate",
    "not_equal",
    "one_hot",
    "permute",
    "pow",
    "power",
    "power_scalar",
    "prod",
    "reciprocal",
    "relu",
    "remainder",
    "reshape",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "sub",
    "sum",
    "summation",
    "swapaxes",
    "take",
    "tanh",
    "transpose",
    "unsqueeze",
    "var",
    "where",
]

Axes = int | Sequence[int] | None


def reshape(a: Tensor, shape: Sequence[int]) -> Tensor:
    """`a` with other sizes; one of them may be -1."""
    return a.reshape(tuple(shape))


def summation(a: Tensor, axes: Axes = None) -> Tensor:
    """Sum along `axes`, or of everything."""
    return _core.sum(a, axes)


def logsumexp(a: Tensor, axes: Axes = None, keepdims: bool = False) -> Tensor:
    """log Σeᵃ along `axes`, or of everything, without overflow."""
    return _core.logsumexp(a, axes, keepdims)


def logsoftmax(a: Tensor) -> Tensor:
    """a − log Σeᵃ along the last axis."""
    return _core.log_softmax(a, -1)


def transpose(a: Tensor, axes: tuple[int, int] | None = None) -> Tensor:
    """Swaps a pair of axes; None swaps the last two."""
    first, second = (-2, -1) if axes is None else axes
    return _core.swapaxes(a, first, second)


def multiply(a: Any, b: Any) -> Tensor:
    """a · b, element by element."""
    return _core.mul(a, b)


def divide(a: Any, b: Any) -> Tensor:
    """a / b, element by element."""
    return _core.div(a, b)


def power(a: Any, b: Any) -> Tensor:
    """a ** b, element by element."""
    return _core.pow(a, b)


def negate(a: Tensor) -> Tensor:
    """−a."""
    return _core.neg(a)


def add_scalar(a: Tensor, scalar: float) -> Tensor:
    """a + scalar."""
    return _core.add(a, scalar)


def mul_scalar(a: Tensor, scalar: float) -> Tensor:
    """a · scalar."""
    return _core.mul(a, scalar)


def divide_scalar(a: Tensor, scalar: float) -> Tensor:
    """a / scalar."""
    return _core.div(a, scalar)


def power_scalar(a: Tensor, scalar: float) -> Tensor:
    """a ** scalar."""
    return _core.pow(a, scalar)
