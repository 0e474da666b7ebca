"""How exact `BatchNorm1d` is, row by row: outputs at offsets, extreme columns, gradients of both orders, and the same bits at any
number of threads for every shape of the speed table.

The oracle is float64: NumPy for outputs, single operations on tensors of float64 for gradients. What float32 rounds away from the
input is taken as given, so both see the same numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import treadle
from benches.peers.rows import BATCH_NORM
from tests.python.batch_norm_reference import normalised, over, per_channel
from treadle import Tensor, nn

LARGE = {"(N, C)": (4096, 6), "(N, C, L)": (64, 6, 64)}
SMALL = {"(N, C)": (24, 5), "(N, C, L)": (6, 5, 7)}


def transposed(x: np.ndarray) -> Tensor:
    """With the first axis last in memory."""
    return treadle.tensor(np.ascontiguousarray(x.T)).T


def channels_last(x: np.ndarray) -> Tensor:
    """With the channels last in memory, as (N, C) has them anyway."""
    return treadle.tensor(np.ascontiguousarray(np.moveaxis(x, 1, -1))).permute((0, x.ndim - 1, *range(1, x.ndim - 1)))


def gapped(x: np.ndarray) -> Tensor:
    """Every second row and every third channel of a larger array, whose other elements are NaN."""
    wide = np.full((2 * x.shape[0], 3 * x.shape[1], *x.shape[2:]), np.nan, x.dtype)
    wide[::2, 1::3] = x
    return treadle.tensor(wide)[::2, 1::3]


LAYOUTS: dict[str, Callable[[np.ndarray], Tensor]] = {
    "contiguous": treadle.tensor,
    "transposed": transposed,
    "channels last": channels_last,
    "gapped": gapped,
}
layouts = pytest.mark.parametrize("layout", LAYOUTS)
kinds = pytest.mark.parametrize("kind", SMALL)


def draw(shape: tuple[int, ...], seed: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# outputs ------------------------------------------------------------------------


@layouts
@kinds
@pytest.mark.parametrize("offset", [0, 1e3, 1e6, 1e7], ids=lambda offset: f"offset {offset:g}")
def test_float32_output_is_within_1e_6_of_float64(offset: float, kind: str, layout: str) -> None:
    x = (draw(LARGE[kind], 1, "float64") + offset).astype("float32")
    assert x.std() > 0.5
    bn = nn.BatchNorm1d(6, momentum=1.0)
    y = bn(LAYOUTS[layout](x)).detach().numpy()
    assert np.abs(y - normalised(x)).max() <= 1e-6
    np.testing.assert_allclose(bn.running_var.numpy(), x.astype("float64").var(over(x)), rtol=1e-6)
    np.testing.assert_allclose(bn.running_mean.numpy(), x.astype("float64").mean(over(x)), rtol=1e-6, atol=1e-6)


@layouts
@kinds
@pytest.mark.parametrize("value", [0.0, 0.1, 1e7 + 1, -3.3e30, 1e-30], ids=lambda value: f"column of {value:g}")
def test_a_constant_column_is_exactly_zero(value: float, kind: str, layout: str) -> None:
    x = draw(LARGE[kind], 2)
    x[:, 2] = value
    leaf = LAYOUTS[layout](x).requires_grad_()
    y = nn.BatchNorm1d(6)(leaf)
    assert not y.detach().numpy()[:, 2].any()
    y.backward(treadle.tensor(draw(x.shape, 3)))
    assert np.isfinite(leaf.grad.numpy()).all()


@layouts
@kinds
def test_inputs_of_1e30_neither_overflow_nor_poison(kind: str, layout: str) -> None:
    """One column among others: its output is right, the other columns, the gradients and the running statistics are too."""
    x, g = draw(LARGE[kind], 4), draw(LARGE[kind], 5)
    x[:, 1] *= np.float32(1e30)
    leaf, bn = LAYOUTS[layout](x).requires_grad_(), nn.BatchNorm1d(6)
    with pytest.warns(RuntimeWarning, match="in 1 of 6 channels"):  # 1e60 is no float32
        y = bn(leaf)
    assert np.abs(y.detach().numpy() - normalised(x)).max() <= 1e-6
    y.backward(treadle.tensor(g))
    exact = nn.BatchNorm1d(6, dtype="float64")
    wide = treadle.tensor(x.astype("float64"), requires_grad=True)
    exact(wide).backward(treadle.tensor(g.astype("float64")))
    scale = per_channel([1, 1e30, 1, 1, 1, 1], x)
    assert relative_error(leaf.grad.numpy() * scale, wide.grad.numpy() * scale) <= 1e-6
    assert relative_error(bn.weight.grad.numpy(), exact.weight.grad.numpy()) <= 1e-6
    assert np.isfinite(bn.running_mean.numpy()).all()
    assert np.isfinite(bn.running_var.numpy()).all()


@layouts
@kinds
def test_eval_output_is_within_1e_6_of_float64_at_any_offset(kind: str, layout: str) -> None:
    for offset in (0, 1e3, 1e6, 1e7):
        x = (draw(LARGE[kind], 6, "float64") + offset).astype("float32")
        bn = nn.BatchNorm1d(6).eval()
        bn.running_mean.copy_(np.full(6, offset, "float32"))
        y = bn(LAYOUTS[layout](x)).detach().numpy()
        assert np.abs(y - (x.astype("float64") - offset) / np.sqrt(1 + 1e-5)).max() <= 1e-6


# gradients ----------------------------------------------------------------------


def composed(bn: nn.BatchNorm1d, x: Tensor, training: bool, w: Tensor, b: Tensor) -> Tensor:
    """The layer in single operations."""
    wide = (1, bn.dim) + (1,) * (x.ndim - 2)
    axes = over(x)
    mean, var = bn.running_mean.reshape(wide), bn.running_var.reshape(wide)
    if training:
        mean = x.mean(axes, keepdims=True)
        var = (x - mean).square().mean(axes, keepdims=True)
    return w.reshape(wide) * (x - mean) / (var + bn.eps).sqrt() + b.reshape(wide)


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    scale = np.abs(want).max()
    assert scale > 1e-3, "an expected gradient of zero tests nothing"
    return float(np.abs(got - want).max() / scale)


def orders(forward: Callable[..., Tensor], leaves: list[Tensor], g: Tensor, directions: list[Tensor]) -> Iterator[np.ndarray]:
    """Gradients of x, w and b for a cotangent, and of ⟨those, directions⟩ with respect to x, w and the cotangent."""
    x, w, b = leaves
    first = treadle.grad(forward(x, w, b), leaves, g, create_graph=True)
    inner = sum(((d * v).sum() for d, v in zip(first, directions, strict=True)), start=treadle.zeros((), dtype=x.dtype))
    second = treadle.grad(inner, [x, w, g])
    for gradient in (*first, *second):
        yield gradient.detach().numpy()


NAMES = ("dx", "dw", "db", "d²x", "d²w", "d²dy")


@layouts
@kinds
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-5)])
def test_gradients_of_first_and_second_order(dtype: str, tolerance: float, training: bool, kind: str, layout: str) -> None:
    shape = SMALL[kind]
    x, g, c = 2 * draw(shape, 7) + 1, draw(shape, 8), shape[1]
    w, b, mean, var = (draw((c,), seed) for seed in (9, 10, 11, 12))
    bn = nn.BatchNorm1d(c, dtype=dtype).train(training)
    exact = copy.deepcopy(bn).double()
    for layer in (bn, exact):
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(np.abs(var) + 0.5)
    directions = [draw(shape, 13), draw((c,), 14), draw((c,), 15)]
    del bn.weight, bn.bias  # so that other tensors than parameters may take their places

    def fused(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        bn.weight, bn.bias = w, b
        return bn(x)

    def cast(values: list[np.ndarray], to: str) -> list[Tensor]:
        return [treadle.tensor(value.astype(to), requires_grad=True) for value in values]

    given = [LAYOUTS[layout](x.astype(dtype)).requires_grad_(), *cast([w, b], dtype)]
    cotangent = LAYOUTS[layout](g.astype(dtype)).requires_grad_()
    got = orders(fused, given, cotangent, cast(directions, dtype))
    (wide_g,) = cast([g], "float64")
    want = orders(
        lambda *xs: composed(exact, xs[0], training, *xs[1:]), cast([x, w, b], "float64"), wide_g, cast(directions, "float64")
    )
    for name, ours, theirs in zip(NAMES, got, want, strict=True):
        assert relative_error(ours, theirs) <= tolerance, name


@layouts
@kinds
def test_float32_gradients_of_a_large_batch_are_within_1e_6_of_float64(kind: str, layout: str) -> None:
    x, g = draw(LARGE[kind], 16) + 100, draw(LARGE[kind], 17)
    bn, exact = nn.BatchNorm1d(6), nn.BatchNorm1d(6, dtype="float64")
    leaf, wide = LAYOUTS[layout](x).requires_grad_(), treadle.tensor(x.astype("float64"), requires_grad=True)
    bn(leaf).backward(LAYOUTS[layout](g))
    composed(exact, wide, True, exact.weight, exact.bias).backward(treadle.tensor(g.astype("float64")))
    pairs = ((leaf, wide), (bn.weight, exact.weight), (bn.bias, exact.bias))
    for name, (ours, theirs) in zip(NAMES, pairs, strict=False):
        assert relative_error(ours.grad.numpy(), theirs.grad.numpy()) <= 1e-6, name


# bits ---------------------------------------------------------------------------


@pytest.fixture
def _threads_as_before() -> Iterator[None]:
    before = treadle.get_num_threads()
    yield
    treadle.set_num_threads(before)


@pytest.mark.usefixtures("_threads_as_before")
@pytest.mark.parametrize("shape", BATCH_NORM, ids=str)
def test_bits_are_equal_at_1_2_3_and_8_threads(shape: tuple[int, ...]) -> None:
    """Forward, backward, running statistics and eval, for all shapes of the speed table."""
    generator = treadle.Generator(0)
    x, g = (treadle.randn(*shape, generator=generator) for _ in range(2))
    w, b = (treadle.randn(shape[1], generator=generator) for _ in range(2))
    x.requires_grad_()

    def everything(threads: int) -> dict[str, np.ndarray]:
        treadle.set_num_threads(threads)
        bn = nn.BatchNorm1d(shape[1])
        bn.weight.copy_(w)
        bn.bias.copy_(b)
        x.grad = None
        y = bn(x)
        y.backward(g)
        found = {"y": y.detach(), "dx": x.grad, "dw": bn.weight.grad, "db": bn.bias.grad}
        found |= {"running_mean": bn.running_mean, "running_var": bn.running_var, "eval": bn.eval()(x).detach()}
        return {name: tensor.numpy().view("int32") for name, tensor in found.items()}

    one = everything(1)
    for threads in (2, 3, 8):
        for name, bits in everything(threads).items():
            np.testing.assert_array_equal(bits, one[name], err_msg=f"{name} at {threads} threads")
