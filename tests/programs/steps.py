"""The steps that programs are drawn from: each is one operation in both libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import treadle
from tests.references import BINARY, DTYPES, FLOATS, POSITIVE, UNARY

Draw = Callable[[st.SearchStrategy[Any]], Any]
#: Numbers further from zero than this are not computed with: powers of them would soon be infinite.
LARGE = 30.0
#: What functions that are not defined everywhere take at least.
LOW = 0.2


@dataclass(frozen=True)
class Step:
    """An operation on earlier values: what treadle does, and what NumPy does."""

    name: str
    inputs: tuple[int, ...]
    treadle: Callable[..., treadle.Tensor]
    numpy: Callable[..., Any]
    #: A cast to float32, whose steps differences would see: gradients are checked with float64 in its place.
    narrows: bool = False


def pick(draw: Draw, values: list[np.ndarray], fits: Callable[[np.ndarray], Any]) -> int | None:
    """The index of a value, later ones rather than earlier ones, or None where none fits."""
    found = [i for i, x in enumerate(values) if fits(x)]
    return found[-1 - draw(st.integers(0, min(len(found), 4) - 1))] if found else None


def is_float(x: np.ndarray) -> bool:
    return x.dtype.kind == "f" and bool(np.abs(x).max(initial=0) < LARGE)


def unary(draw: Draw, values: list[np.ndarray]) -> Step | None:
    i = pick(draw, values, is_float)
    if i is None:
        return None
    names = list(UNARY)
    if values[i].min(initial=1) > LOW:
        names += list(POSITIVE)
    name = draw(st.sampled_from(names))
    return Step(name, (i,), lambda x: getattr(x, name)(), UNARY.get(name) or POSITIVE[name])


def _partner(draw: Draw, values: list[np.ndarray], i: int, fits: Callable[[np.ndarray], Any]) -> int | None:
    """A value that broadcasts with value i."""

    def broadcasts(y: np.ndarray) -> bool:
        try:
            np.broadcast_shapes(values[i].shape, y.shape)
        except ValueError:
            return False
        return bool(fits(y))

    return pick(draw, values, broadcasts)


def binary(draw: Draw, values: list[np.ndarray]) -> Step | None:
    name = draw(st.sampled_from([*BINARY, "div", "pow"]))
    numpy, dtypes = BINARY.get(name) or ({"div": np.divide, "pow": np.power}[name], FLOATS)

    def fits(x: np.ndarray) -> bool:
        return x.dtype.name in dtypes and (x.dtype.kind != "f" or is_float(x))

    def second(x: np.ndarray) -> bool:
        return fits(x) and (name not in ("div", "pow") or (x.min(initial=1) > LOW and x.max(initial=0) < 3))

    i = pick(draw, values, lambda x: fits(x) and (name != "pow" or x.min(initial=1) > LOW))
    j = None if i is None else _partner(draw, values, i, second)
    if i is None or j is None:
        return None
    return Step(
        name,
        (i, j),
        getattr(treadle.ops, name, None) or getattr(treadle.Tensor, f"__{'truediv' if name == 'div' else name}__"),
        numpy,
    )


def where(draw: Draw, values: list[np.ndarray]) -> Step | None:
    i = pick(draw, values, is_float)
    j = None if i is None else _partner(draw, values, i, is_float)
    if i is None or j is None:
        return None
    shape = np.broadcast_shapes(values[i].shape, values[j].shape)
    chosen = np.random.default_rng(draw(st.integers(0, 99))).random(shape) < 0.5
    return Step("where", (i, j), lambda x, y: treadle.where(treadle.tensor(chosen), x, y), lambda x, y: np.where(chosen, x, y))


def matmul(draw: Draw, values: list[np.ndarray]) -> Step | None:
    i = pick(draw, values, lambda x: is_float(x) and x.ndim >= 2)
    if i is None:
        return None
    j = pick(draw, values, lambda y: is_float(y) and y.ndim == 2 and y.shape[0] == values[i].shape[-1])
    if j is not None and draw(st.booleans()):
        return Step("matmul", (i, j), lambda x, y: x @ y, lambda x, y: x @ y)
    # A matrix always fits its own transpose, a view.
    return Step("matmul", (i,), lambda x: x @ x.swapaxes(-1, -2), lambda x: x @ x.swapaxes(-1, -2))


def _logsumexp(x: np.ndarray, axis: Any, keepdims: bool) -> Any:
    return np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims))


REDUCTIONS: dict[str, Any] = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
    "var": np.var,
    "logsumexp": _logsumexp,
}


def reduce(draw: Draw, values: list[np.ndarray]) -> Step | None:
    i = pick(draw, values, lambda x: x.size and (is_float(x) or x.dtype == np.int64))
    if i is None:
        return None
    x = values[i]
    names = ["sum", "max", "min"] if x.dtype == np.int64 else list(REDUCTIONS)
    name = draw(st.sampled_from(names))
    axis = draw(st.none() | hnp.valid_tuple_axes(x.ndim)) if x.ndim else None
    keepdims = draw(st.booleans())
    return Step(name, (i,), lambda x: getattr(x, name)(axis, keepdims), lambda x: REDUCTIONS[name](x, axis=axis, keepdims=keepdims))


def softmax(draw: Draw, values: list[np.ndarray]) -> Step | None:
    i = pick(draw, values, lambda x: is_float(x) and x.ndim and x.size)
    if i is None:
        return None
    axis, logs = draw(st.integers(-values[i].ndim, values[i].ndim - 1)), draw(st.booleans())

    def numpy(x: np.ndarray) -> np.ndarray:
        y = x - x.max(axis, keepdims=True)
        y = y - _logsumexp(y, axis, keepdims=True)
        return y if logs else np.exp(y)

    return Step("log_softmax" if logs else "softmax", (i,), lambda x: x.log_softmax(axis) if logs else x.softmax(axis), numpy)


def _slices(draw: Draw, shape: tuple[int, ...]) -> tuple[Any, ...]:
    ends = st.none() | st.integers(-4, 4)
    steps = st.sampled_from([None, 1, 2, -1, -2])
    entry = st.builds(slice, ends, ends, steps) | st.just(slice(None))
    return tuple(draw(st.integers(-n, n - 1) if n and draw(st.integers(0, 5)) == 0 else entry) for n in shape)


def view(draw: Draw, values: list[np.ndarray]) -> Step | None:
    i = pick(draw, values, lambda x: x.ndim)
    if i is None:
        return None
    x, n = values[i], values[i].ndim
    axis = draw(st.integers(-n, n - 1))
    order, key = draw(st.permutations(range(n))), _slices(draw, x.shape)
    wide = (draw(st.integers(1, 3)), *x.shape)
    flat = (x.size,) if n > 1 else (1, *x.shape, 1)
    kinds: list[tuple[str, Callable[..., Any], Callable[..., Any]]] = [
        ("permute", lambda t: t.permute(*order), lambda x: x.transpose(order)),
        ("index", lambda t: t[key], lambda x: x[key]),
        ("broadcast_to", lambda t: t.broadcast_to(wide), lambda x: np.broadcast_to(x, wide)),
        ("flip", lambda t: t.flip(axis), lambda x: np.flip(x, axis)),
        ("unsqueeze", lambda t: t.unsqueeze(axis), lambda x: np.expand_dims(x, axis)),
        ("squeeze", lambda t: t.squeeze(), np.squeeze),
        ("reshape", lambda t: t.reshape(flat), lambda x: x.reshape(flat)),
    ]
    name, treadle_, numpy = draw(st.sampled_from(kinds if x.size * wide[0] <= 2000 and n < 5 else kinds[:2]))
    return Step(name, (i,), treadle_, numpy)


def pieces(draw: Draw, values: list[np.ndarray]) -> Step | None:
    """Taking, joining and assigning along an axis."""
    i = pick(draw, values, lambda x: x.ndim and x.size)
    if i is None:
        return None
    x = values[i]
    axis = draw(st.integers(-x.ndim, x.ndim - 1))
    index = draw(st.lists(st.integers(0, x.shape[axis] - 1), min_size=1, max_size=4))
    key = _slices(draw, x.shape)
    j = pick(draw, values, lambda y: y.shape == x.shape and y.dtype == x.dtype)
    assert j is not None

    def assigned(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        changed = x.copy()
        changed[key] = y[key]
        return changed

    def assign(t: treadle.Tensor, u: treadle.Tensor) -> treadle.Tensor:
        changed = t.clone()
        changed[key] = u[key]
        return changed

    kinds: list[tuple[str, tuple[int, ...], Callable[..., Any], Callable[..., Any]]] = [
        ("take", (i,), lambda t: t.take(treadle.tensor(index), axis), lambda x: x.take(index, axis)),
        ("concatenate", (i, j), lambda t, u: treadle.concatenate([t, u], axis), lambda x, y: np.concatenate([x, y], axis)),
        ("stack", (i, j), lambda t, u: treadle.stack([t, u], axis), lambda x, y: np.stack([x, y], axis)),
        ("assign", (i, j), assign, assigned),
    ]
    return Step(*draw(st.sampled_from(kinds if x.size <= 1000 and x.ndim < 5 else kinds[:1])))


def cast(draw: Draw, values: list[np.ndarray]) -> Step | None:
    i = pick(draw, values, lambda x: np.abs(x.astype(np.float64)).max(initial=0) < LARGE)
    if i is None:
        return None
    to = draw(st.sampled_from([d for d in DTYPES if d != "uint8" or values[i].min(initial=0) >= 0]))
    return Step(f"astype {to}", (i,), lambda t: t.astype(to), lambda x: x.astype(to), narrows=to == "float32")


FAMILIES = [unary, unary, binary, binary, where, matmul, reduce, softmax, view, view, pieces, cast]
