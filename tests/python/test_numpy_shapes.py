"""Shapes, joining and indexing against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import treadle

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    """Every element another number."""
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


def same(got: treadle.Tensor, want: Any) -> None:
    """Exactly equal."""
    assert got.shape == want.shape
    assert np.array_equal(got.numpy(), want)


@given(shape=SHAPES, data=st.data())
def test_axes(shape: tuple[int, ...], data: st.DataObject) -> None:
    x = numbered(shape)
    t = treadle.tensor(x)
    order = data.draw(st.permutations(range(x.ndim)))
    same(t.permute(*order), x.transpose(order))
    same(t.T, x.T)
    a, b = data.draw(st.tuples(st.integers(-x.ndim, x.ndim - 1), st.integers(-x.ndim, x.ndim - 1)))
    same(t.swapaxes(a, b), x.swapaxes(a, b))
    same(t.flip(a), np.flip(x, a))
    same(t.unsqueeze(a), np.expand_dims(x, a))
    same(t.unsqueeze(a).squeeze(), x.squeeze())
    same(t.reshape(-1) if x.size else t.reshape(0), x.reshape(-1))
    same(t.permute(*order).reshape(x.size), x.transpose(order).reshape(x.size))
    wide = (3, *shape)
    same(t.broadcast_to(wide), np.broadcast_to(x, wide))
    same(t.flatten(), x.reshape(-1))


@given(shape=SHAPES, data=st.data())
def test_joining_and_splitting(shape: tuple[int, ...], data: st.DataObject) -> None:
    x = numbered(shape)
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    t = treadle.tensor(x)
    same(treadle.concatenate([t, t + 1], axis), np.concatenate([x, x + 1], axis))
    same(treadle.stack([t, t + 1], axis), np.stack([x, x + 1], axis))
    n = shape[axis]
    cut = data.draw(st.integers(0, n))
    for got, want in zip(t.split([cut, n - cut], axis), np.split(x, [cut], axis), strict=True):
        same(got, want)


def test_parts_of_one_size() -> None:
    x = numbered((5, 3))
    for n, each, sizes in [(5, 2, [2, 2, 1]), (5, 5, [5]), (5, 9, [5]), (0, 2, [0]), (0, 0, [0])]:
        assert [len(part) for part in treadle.tensor(x[:n]).split(each)] == sizes
    assert [part.shape for part in treadle.tensor(x).split([5])] == [(5, 3)]


@pytest.mark.parametrize("key", [0, ..., [1], (slice(None), [0, 2]), np.zeros((2, 3), bool)])
@pytest.mark.parametrize("recorded", [False, True])
def test_axes_of_one_in_front_of_what_is_assigned(key: Any, recorded: bool) -> None:
    changed = numbered((2, 3))
    value = np.full((1, 1, *np.shape(changed[key])), 7, np.float32)
    t, v = treadle.tensor(changed), treadle.tensor(value, requires_grad=recorded)
    t[key] = v
    if recorded:
        t.sum().backward()
        same(v.grad, np.ones_like(value))
    if changed[key].size:
        changed[key] = value
    same(t.detach(), changed)


# How a tensor may lie in memory.
LAYOUTS: list[Callable[[np.ndarray], treadle.Tensor]] = [
    treadle.tensor,
    lambda x: treadle.tensor(x.T.copy()).T,
    lambda x: treadle.tensor(x[::-1].copy()).flip(0),
    lambda x: treadle.tensor(np.concatenate([x, x, x]))[len(x) : 2 * len(x)],
    lambda x: treadle.tensor(np.stack([x, x], -1))[..., 1],
]

SLICES = st.builds(slice, st.none() | st.integers(-5, 5), st.none() | st.integers(-5, 5), st.sampled_from([None, 1, 2, -1, -2]))


def entry() -> st.SearchStrategy[Any]:
    return st.one_of(st.integers(-3, 2), SLICES, st.none())


@given(index=st.lists(entry(), max_size=4), dots=st.integers(0, 4))
def test_basic_indexing(index: list[Any], dots: int) -> None:
    x = numbered((3, 4, 5))
    if dots <= len(index):
        index = [*index[:dots], ..., *index[dots:]]
    key = tuple(index)
    try:
        want = x[key]
    except IndexError:
        with pytest.raises(IndexError):
            treadle.tensor(x)[key]
        return
    same(treadle.tensor(x)[key], want)
    changed = x.copy()
    changed[key] = -1
    for layout in LAYOUTS:
        t = layout(x)
        t[key] = -1.0
        same(t, changed)


@given(shape=SHAPES, cuts=st.lists(st.lists(SLICES, max_size=4), max_size=4), whole=st.integers(0, 4), leaf=st.booleans())
def test_gradients_of_parts_add_up(shape: tuple[int, ...], cuts: list[list[slice]], whole: int, leaf: bool) -> None:
    parts = [tuple(cut[: len(shape)]) for cut in cuts]
    parts.insert(whole, ())
    x = treadle.tensor(numbered(shape).astype(np.float64), requires_grad=True)
    base = x if leaf else x * 1.0
    outputs = [base[part] if part else base.reshape(*shape, 1) for part in parts]
    given = [numbered(y.shape).astype(np.float64) + i for i, y in enumerate(outputs)]
    want = np.zeros(shape)
    for part, y in zip(parts, given, strict=True):
        want[part] += y.reshape(want[part].shape)
    tensors = [treadle.tensor(y) for y in given]
    for recorded in (False, True):
        same(treadle.grad(outputs, [x], tensors, retain_graph=True, create_graph=recorded)[0], want)
    with treadle.detect_anomaly():
        same(treadle.grad(outputs, [x], tensors)[0], want)
    for tensor, y in zip(tensors, given, strict=True):
        same(tensor, y)


KEYS: dict[str, Any] = {
    "list": [2, 0, -1],
    "array": np.array([[0, 2], [1, 1]]),
    "mask of all": numbered((3, 4, 5)) % 3 == 0,
    "mask of rows": np.array([True, False, True]),
    "array and slice": (np.array([0, 2]), slice(1, 3)),
    "slice and array": (slice(None), np.array([3, 0])),
    "two arrays": (np.array([0, 2, 1]), np.array([3, 0, 3])),
    "arrays that broadcast": (np.array([[0], [2]]), np.array([3, 0, 3])),
    "array after an integer": (1, np.array([3, 0])),
    "arrays apart": (np.array([0, 2]), slice(None), np.array([4, 1])),
    "empty": np.zeros(0, np.int64),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_advanced_indexing(key: Any) -> None:
    x = numbered((3, 4, 5))
    same(treadle.tensor(x)[key], x[key])
    changed, t = x.copy(), treadle.tensor(x)
    changed[key] = -7
    t[key] = -7.0
    same(t, changed)


@st.composite
def keys(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Integers, slices, new axes, arrays that broadcast together and masks of one axis or more."""
    places = draw(hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=3))
    key: list[Any] = []
    axis = 0
    while axis < len(shape) and draw(st.integers(0, 5)):
        n = shape[axis]
        match draw(st.sampled_from(["array", "mask", "entry"])):
            case "array" if n:
                sizes = tuple(draw(st.sampled_from([1, size])) for size in places)
                key.append(draw(hnp.arrays(draw(st.sampled_from([np.int64, np.int32])), sizes, elements=st.integers(-n, n - 1))))
            case "mask":
                axes = draw(st.integers(1, len(shape) - axis))
                key.append(draw(hnp.arrays(np.bool_, shape[axis : axis + axes])))
                axis += axes - 1
            case _:
                key.append(draw(entry()))
                axis -= key[-1] is None
        axis += 1
    return (*key, ...) if draw(st.booleans()) else tuple(key)


@given(shape=SHAPES, dtype=st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]), data=st.data())
def test_any_index_reads_writes_and_has_gradients(shape: tuple[int, ...], dtype: Any, data: st.DataObject) -> None:
    x = numbered(shape).astype(dtype)
    key = data.draw(keys(shape))
    t = data.draw(st.sampled_from(LAYOUTS))(x)
    try:
        want = x[key]
    except IndexError:
        with pytest.raises((IndexError, ValueError)):
            t[key]
        with pytest.raises((IndexError, ValueError)):
            t[key] = 1
        same(t, x)
        return
    same(t[key], want)
    sizes = want.shape[data.draw(st.integers(0, want.ndim)) :]
    value = (100 + numbered(sizes)).astype(dtype)
    changed, other = x.copy(), t[...] if data.draw(st.booleans()) else None
    changed[key] = value
    t[key] = treadle.tensor(value)
    same(t, changed)
    if other is not None:
        same(other, x)
    if dtype == np.float64:
        leaf = data.draw(st.sampled_from(LAYOUTS))(x).requires_grad_()
        leaf[key].backward(treadle.tensor(want))
        grad = np.zeros(shape)
        np.add.at(grad, key, want)
        assert leaf.grad is not None
        same(leaf.grad, grad)
        recorded, written = leaf * 1.0, treadle.tensor(value, requires_grad=True)
        recorded[key] = written
        same(recorded, changed)
        from_x, from_value = treadle.grad(recorded, [leaf, written], [treadle.tensor(x)])
        left, turn = x.copy(), np.arange(want.size).reshape(want.shape)
        left[key] = 0
        same(from_x, left)
        last = np.zeros(shape, int)
        last[key] = turn
        there = np.where(last[key] == turn, want, 0)
        same(from_value, there.sum(tuple(range(want.ndim - len(sizes)))))


def test_an_index_reads_what_it_names_alone() -> None:
    """Views that no memory could hold."""
    x = numbered((4,))
    row, rows = treadle.tensor(x), treadle.tensor([-1, 0])
    table = row.broadcast_to((10**8, 1000, 4))
    for key in [
        (rows,),
        (slice(None, None, -2), 0, rows),
        (rows, slice(2), rows),
        (0, slice(None, 3), rows),
        (..., rows, slice(1, 3)),
    ]:
        few = table[:6] if key[0] is ... or isinstance(key[0], slice) else table
        want = np.broadcast_to(x, few.shape)[tuple(np.array([-1, 0]) if part is rows else part for part in key)]
        same(few[key], want)
    same(table.take(rows, 0)[:, 5], np.stack([x, x]))
    some = treadle.zeros(1, 1000, 4, dtype="int64")
    same(table.gather(some, 0)[0, 7], x)


def test_a_failed_assignment_changes_nothing() -> None:
    for key, value in [([0, 3], 1.0), (([0, 1], [0, 1, 2]), 1.0), ([0, 1], treadle.ones(3)), (np.array([[True, False]]), 1.0)]:
        t = treadle.zeros(3, 4)
        with pytest.raises((IndexError, ValueError)):
            t[key] = value
        same(t, np.zeros((3, 4)))


@pytest.mark.parametrize("shape", [(3, 5000), (2, 3, 4099), (5000, 2), (1, 9000, 1), (20, 30, 40)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_along_any_axis_of_large_tensors(shape: tuple[int, ...], layout: Callable[[np.ndarray], treadle.Tensor]) -> None:
    along_any_axis(numbered(shape), layout, np.random.default_rng(0))


@given(shape=SHAPES, layout=st.sampled_from(LAYOUTS), seed=st.integers(0, 2**32))
def test_rows_along_any_axis(shape: tuple[int, ...], layout: Callable[[np.ndarray], treadle.Tensor], seed: int) -> None:
    along_any_axis(numbered(shape), layout, np.random.default_rng(seed))


def along_any_axis(x: np.ndarray, layout: Callable[[np.ndarray], treadle.Tensor], rng: np.random.Generator) -> None:
    """`take`, `index_add`, `gather` and their gradients, of whole numbers: exact in any order of sums."""
    x = x.astype(np.float64) % 1000

    def same_and_gradient(read: Callable[[treadle.Tensor], treadle.Tensor], key: tuple[Any, ...]) -> np.ndarray:
        leaf = layout(x).requires_grad_()
        got = read(leaf)
        same(got, x[key])
        got.backward(got.detach())
        grad = np.zeros_like(x)
        np.add.at(grad, key, x[key])
        assert leaf.grad is not None
        same(leaf.grad, grad)
        return grad

    for axis, n in enumerate(x.shape):
        m = int(rng.integers(0, 2 * n + 1))
        rows = rng.integers(-n, max(n, 1), m)
        key = (*[slice(None)] * axis, rows)
        index = treadle.tensor(rows)
        added = same_and_gradient(lambda t, i=index, a=axis: t.take(i, a), key)
        same(layout(x).index_add(index, treadle.tensor(x[key]), axis), x + added)
        elements = rng.integers(-n, max(n, 1), [*x.shape[:axis], m, *x.shape[axis + 1 :]])
        around = np.indices(elements.shape, sparse=True)
        index = treadle.tensor(elements)
        same_and_gradient(lambda t, i=index, a=axis: t.gather(i, a), (*around[:axis], elements, *around[axis + 1 :]))


def test_where_take_gather_and_put() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 4, 5)).astype(np.float32)
    t, u = treadle.tensor(x), treadle.tensor(y)
    same(treadle.where(t > u, t, u), np.where(x > y, x, y))
    same(t.take(treadle.tensor([3, 0, 3]), 1), x.take([3, 0, 3], 1))
    index = rng.integers(0, 4, (4, 2))
    same(t.gather(treadle.tensor(index), 1), np.take_along_axis(x, index, 1))
    added = x.copy()
    np.add.at(added, [0, 0, 2], y[:3])
    np.testing.assert_allclose(t.index_add(treadle.tensor([0, 0, 2]), u[:3]).numpy(), added, rtol=1e-6)
    most = treadle.tensor([-3e38], requires_grad=True)
    assert most.index_add(treadle.tensor([0, 0]), treadle.tensor([3e38, 3e38])).item() == np.float32(3e38)
    same(t.clip(-0.5, 0.5), x.clip(-0.5, 0.5))
    same(t.masked_fill(t > 0, 9.0), np.where(x > 0, np.float32(9), x))
    same(treadle.ops.one_hot(treadle.tensor([2, 0]), 3), np.eye(3, dtype=np.float32)[[2, 0]])


def test_creation() -> None:
    for got, want in [
        (treadle.zeros(2, 3), np.zeros((2, 3), np.float32)),
        (treadle.ones((2,), dtype="int64"), np.ones(2, np.int64)),
        (treadle.full((2, 2), 3), np.full((2, 2), 3)),
        (treadle.arange(5), np.arange(5)),
        (treadle.arange(1, 2, 0.25), np.arange(1, 2, 0.25, np.float32)),
        (treadle.arange(5, 0, -2), np.arange(5, 0, -2)),
        (treadle.eye(3, 4), np.eye(3, 4, dtype=np.float32)),
    ]:
        same(got, want)
        assert got.dtype == want.dtype
