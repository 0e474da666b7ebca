"""Every function of arrays against NumPy: random shapes with zeros and ones, views, element types, broadcasting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import treadle
from tests.references import BINARY, DTYPES, FLOATS, POSITIVE, UNARY
from treadle import ops

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@st.composite
def arrays(draw: Any, dtypes: list[str] = DTYPES, shapes: Any = SHAPES, low: float = -4.0, high: float = 4.0) -> np.ndarray:
    """Numbers in a view: transposed, reversed or with gaps."""
    dtype, shape = draw(st.sampled_from(dtypes)), draw(shapes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if dtype in FLOATS:
        array = rng.uniform(low, high, shape).astype(dtype)
    else:
        array = rng.integers(0 if dtype != "int64" else -9, 2 if dtype == "bool" else 10, shape).astype(dtype)
    how = draw(st.integers(0, 3))
    if how == 1:
        return np.ascontiguousarray(array.T).T
    if how == 2 and array.ndim:
        return array[::-1].copy()[::-1]
    if how == 3 and array.ndim:
        return np.repeat(array, 2, axis=-1)[..., ::2]
    return array


def view(array: np.ndarray) -> treadle.Tensor:
    """A tensor of the same values whose layout is not that of a fresh one."""
    t = treadle.tensor(np.ascontiguousarray(array.T))
    return t.permute(*reversed(range(array.ndim))) if array.ndim > 1 else treadle.tensor(array)


def same(got: treadle.Tensor, want: Any, rtol: float = 2e-6, atol: float = 1e-6) -> None:
    """Equal shape and type, and values to a tolerance (exactly for integers and bools)."""
    want = np.asarray(want)
    assert got.shape == want.shape
    assert got.dtype == want.dtype.name
    np.testing.assert_allclose(got.numpy(), want, rtol=rtol, atol=atol if want.dtype.kind == "f" else 0)


@pytest.mark.parametrize("name", [*UNARY, *POSITIVE])
@given(data=st.data())
def test_unary(name: str, data: st.DataObject) -> None:
    x = data.draw(arrays(FLOATS, low=0.1) if name in POSITIVE else arrays(FLOATS))
    reference = POSITIVE.get(name) or UNARY[name]
    want = reference(x.astype(np.float64)).astype(x.dtype)
    same(getattr(view(x), name)(), want)
    same(getattr(ops, name)(treadle.tensor(x)), want)


@pytest.mark.parametrize("name", ["isnan", "isinf", "isfinite"])
def test_tests_of_floats(name: str) -> None:
    x = np.array([0.0, -0.0, 1.5, np.nan, np.inf, -np.inf, 1e-45], np.float32)
    same(getattr(treadle.tensor(x), name)(), getattr(np, name)(x))


@given(x=arrays(["int64", "uint8", "bool"]))
def test_unary_of_integers_is_of_floats(x: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        want = np.exp(x.astype(np.float64))
    got = treadle.tensor(x).exp()
    assert got.dtype.is_floating_point
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-6)


@given(x=arrays(["int64", "uint8"]))
def test_squares_and_relu_of_integers_are_integers(x: np.ndarray) -> None:
    same(view(x).square(), np.square(x))
    same(view(x).relu(), np.maximum(x, 0))
    big = treadle.tensor([3037000499, 2**53 + 1])
    assert (big.square()[0].item(), big.relu()[1].item()) == (3037000499**2, 2**53 + 1)


@pytest.mark.parametrize("name", BINARY)
@given(data=st.data())
def test_binary_with_promotion_and_broadcasting(name: str, data: st.DataObject) -> None:
    reference, dtypes = BINARY[name]
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=4)).input_shapes
    a, b = (data.draw(arrays(dtypes, st.just(s))) for s in shapes)
    same(getattr(ops, name)(view(a), view(b)), reference(a, b))


@given(data=st.data())
def test_division_and_powers(data: st.DataObject) -> None:
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4)).input_shapes
    a, b = (data.draw(arrays(FLOATS, st.just(s), low=0.2, high=3.0)) for s in shapes)
    same(view(a) / view(b), a / b)
    same(view(a) ** view(b), a**b, rtol=5e-6)
    same(treadle.tensor(-a) // treadle.tensor(b), -a // b)
    same(treadle.tensor(-a) % treadle.tensor(b), -a % b, atol=1e-5)


@given(x=arrays(["float32", "float64", "int64", "uint8"]), scalar=st.sampled_from([2, -3, 0.5, True]))
def test_python_scalars_are_weak(x: np.ndarray, scalar: Any) -> None:
    if x.dtype == np.uint8 and scalar == -3:
        return_type = pytest.raises((OverflowError, ValueError))
        with return_type:
            treadle.tensor(x) + scalar
        return
    same(treadle.tensor(x) + scalar, x + scalar)
    same(scalar * treadle.tensor(x), scalar * x)


REDUCTIONS: dict[str, Any] = {
    "sum": np.sum,
    "mean": np.mean,
    "prod": np.prod,
    "max": np.max,
    "min": np.min,
    "any": np.any,
    "all": np.all,
}


@pytest.mark.parametrize("name", [*REDUCTIONS, "var", "std", "logsumexp"])
@given(data=st.data())
def test_reductions(name: str, data: st.DataObject) -> None:
    dtypes = FLOATS if name in ("var", "std", "mean", "logsumexp") else ["float32", "float64", "int64", "bool"]
    x = data.draw(arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=5)))
    axis = data.draw(st.one_of(st.none(), hnp.valid_tuple_axes(x.ndim))) if x.ndim else None
    keepdims = data.draw(st.booleans())
    wide = x.astype(np.float64) if x.dtype.kind == "f" else x
    if name == "logsumexp":
        want = np.log(np.sum(np.exp(wide), axis=axis, keepdims=keepdims))
    else:
        want = (REDUCTIONS.get(name) or getattr(np, name))(wide, axis=axis, keepdims=keepdims)
    want = np.asarray(want).astype(x.dtype) if x.dtype.kind == "f" and name not in ("any", "all") else np.asarray(want)
    same(getattr(view(x), name)(axis, keepdims), want, rtol=5e-6, atol=5e-6)


@pytest.mark.parametrize(("shape", "axis"), [((16, 40), 0), ((4, 256), 1), ((256,), 0)])
def test_products_of_float32_may_leave_its_range_and_come_back(shape: tuple[int, ...], axis: int) -> None:
    large = np.full([n // 2 if i == axis else n for i, n in enumerate(shape)], 1e30, np.float32)
    small = np.full_like(large, 1e-30)
    want = (large.astype(np.float64) * small).prod(axis)
    same(treadle.tensor(np.concatenate([large, small], axis)).prod(axis), want.astype(np.float32))


@given(data=st.data())
def test_arg_extremes(data: st.DataObject) -> None:
    x = data.draw(arrays(shapes=hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5)))
    axis = data.draw(st.one_of(st.none(), st.integers(-x.ndim, x.ndim - 1)))
    same(view(x).argmax(axis), np.argmax(x, axis))
    same(view(x).argmin(axis), np.argmin(x, axis))


@given(data=st.data())
def test_softmax(data: st.DataObject) -> None:
    x = data.draw(arrays(FLOATS, hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=6), low=-30, high=30))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    wide = x.astype(np.float64)
    e = np.exp(wide - wide.max(axis, keepdims=True))
    want = e / e.sum(axis, keepdims=True)
    same(view(x).softmax(axis), want.astype(x.dtype))
    same(view(x).log_softmax(axis), np.log(want).astype(x.dtype), atol=1e-5)


def test_sums_of_many_float32() -> None:
    x = np.random.default_rng(0).uniform(0, 1, 3_000_000).astype(np.float32)
    want = x.astype(np.float64).sum()
    assert abs(treadle.tensor(x).sum().item() - want) / want < 1e-7
    assert abs(treadle.tensor(x).reshape(1500, 2000).sum(0).sum().item() - want) / want < 1e-6


@given(data=st.data())
def test_matmul(data: st.DataObject) -> None:
    signature = hnp.mutually_broadcastable_shapes(signature="(m?,k),(k,n?)->(m?,n?)", max_dims=2, min_side=0, max_side=6)
    shapes = data.draw(signature).input_shapes
    a, b = (data.draw(arrays(FLOATS, st.just(s))) for s in shapes)
    dtype = np.result_type(a, b)
    want = (a.astype(np.float64) @ b.astype(np.float64)).astype(dtype)
    same(view(a) @ view(b), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS)
def test_small_products_of_infinities(dtype: str) -> None:
    rng = np.random.default_rng(0)
    for m, k, n in rng.integers(1, 20, (200, 3)):
        shapes = [(3, m, k), (2, 1, k, n)]
        a, b = (
            np.where(rng.random(s) < 0.02, rng.choice([np.inf, -np.inf, np.nan], s), rng.random(s)).astype(dtype) for s in shapes
        )
        with np.errstate(invalid="ignore"):
            want = a @ b
        same(view(a) @ treadle.tensor(b), want)
        same(treadle.tensor(a) @ view(b), want)


@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), (5, 7, 9), (70, 300, 65), (1, 2000, 1), (1, 2000, 33), (33, 2000, 1), (4, 20_000, 3), (3, 0, 2)]
)
def test_integer_products(sizes: tuple[int, int, int]) -> None:
    """Of numbers of every size, in every layout: they wrap around."""
    m, k, n = sizes
    rng = np.random.default_rng(m * k + n)
    a, b = (rng.integers(-(2**63), 2**63, shape) for shape in [(m, k), (k, n)])
    for left in (treadle.tensor(a), view(a), treadle.tensor(a[::-1].copy())[::-1]):
        for right in (treadle.tensor(b), view(b), treadle.tensor(np.repeat(b, 2, axis=1))[:, ::2]):
            assert np.array_equal((left @ right).numpy(), a @ b)


EDGES = [0.0, 1.0, 2.0, 0.5, 4.0, 3.0, 1e-30, 1e30, 7.25, np.inf]
QUOTIENTS = {"remainder": np.remainder, "floor_divide": np.floor_divide}


@pytest.mark.parametrize("name", QUOTIENTS)
@pytest.mark.parametrize("dtype", FLOATS)
@given(seed=st.integers(0, 2**32))
def test_quotients_and_remainders_have_numpy_s_signs(name: str, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (np.where(rng.random(64) < 0.7, rng.choice(EDGES, 64), rng.integers(0, 9, 64)) for _ in range(2))
    a, b = (np.asarray(x * rng.choice([-1.0, 1.0], 64), dtype) for x in (a, b))
    with np.errstate(all="ignore"):
        wanted = QUOTIENTS[name](a, b)
    given = getattr(ops, name)(treadle.tensor(a), treadle.tensor(b)).numpy()
    np.testing.assert_array_equal(given, wanted)
    numbers = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(given[numbers]), np.signbit(wanted[numbers]))
