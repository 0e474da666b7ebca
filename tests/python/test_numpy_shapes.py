"""Shapes, joining and indexing against NumPy."""

from __future__ import annotations

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


@pytest.mark.parametrize("key", [0, (0, 1), ..., [1], (slice(None), [0, 2]), np.zeros((2, 3), bool)])
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


def entry() -> st.SearchStrategy[Any]:
    slices = st.builds(slice, st.none() | st.integers(-5, 5), st.none() | st.integers(-5, 5), st.sampled_from([None, 1, 2, -1, -2]))
    return st.one_of(st.integers(-3, 2), slices, st.none())


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
    changed, t = x.copy(), treadle.tensor(x)
    changed[key] = -1
    t[key] = -1.0
    same(t, changed)


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
