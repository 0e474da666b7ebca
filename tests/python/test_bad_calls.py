"""Bad calls of the core and the layers: each gives a named exception whose message has both facts, and changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from tests.python.bad_layer_calls import INIT, LAYERS, LEAF, LOSSES, OPTIM, N, Row, T, V, X
from treadle import nn, ops
from treadle.nn import functional as F

HUGE = 2**62


def _twice() -> None:
    y = (LEAF * LEAF).sum()
    y.backward()
    y.backward()


class Unreadable:
    """What NumPy asks for an array, in vain."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("no way")


CREATION: list[Row] = [
    ("zeros negative", lambda: treadle.zeros(-1, 2), ValueError, "-1"),
    ("zeros huge", lambda: treadle.zeros(HUGE), MemoryError, "4611686018427387904"),
    ("zeros overflow", lambda: treadle.zeros(2**40, 2**40), MemoryError, "1099511627776"),
    ("zeros ten terabytes", lambda: treadle.zeros(10**12, dtype="float64"), MemoryError, "expected"),
    ("zeros of a float", lambda: treadle.zeros(2.5), TypeError, "float"),
    ("zeros nine dims", lambda: treadle.zeros(*[1] * 9), ValueError, "at most 8 dimensions, got 9"),
    ("zeros of a long range", lambda: treadle.zeros(range(2**40)), ValueError, "at most 8 dimensions, got 1099511627776"),
    (
        "flatten beyond sizes",
        lambda: treadle.zeros(2**33, 2**33, 0).flatten(0, 1),
        MemoryError,
        r"shape: expected no more elements than memory can address, got \(8589934592, 8589934592\)",
    ),
    (
        "concatenate beyond sizes",
        lambda: treadle.concatenate([treadle.zeros(HUGE, 0)] * 5),
        MemoryError,
        "more elements than memory can address, got",
    ),
    ("zeros device", lambda: treadle.zeros(2, device="cuda"), ValueError, "'cuda'"),
    ("zeros dtype", lambda: treadle.zeros(2, dtype="int3"), TypeError, "int3"),
    ("ones complex", lambda: treadle.ones(2, dtype="complex64"), TypeError, "complex64"),
    ("full of text", lambda: treadle.full((2,), "a"), TypeError, "str"),
    ("arange step zero", lambda: treadle.arange(0, 5, 0), ValueError, "step other than 0, got"),
    ("arange infinite", lambda: treadle.arange(float("inf")), ValueError, "inf"),
    ("arange huge", lambda: treadle.arange(2**61), MemoryError, "expected"),
    ("zeros of a tensor", lambda: treadle.zeros(X), TypeError, "^shape: expected integers, got <class 'treadle.Tensor'>$"),
    ("eye negative", lambda: treadle.eye(-1), ValueError, "^eye: expected sizes of at least 0, got -1$"),
    ("eye float", lambda: treadle.eye(2, 1.5), TypeError, "^eye: expected integers, got <class 'float'>$"),
    (
        "full uint8",
        lambda: treadle.full((1,), 300, dtype="uint8"),
        ValueError,
        "^scalar: expected an integer that fits uint8, got 300$",
    ),
    ("full_like nan", lambda: treadle.full_like(N, float("nan")), ValueError, "fits int64, got NaN"),
    ("tensor uint8", lambda: T(-1, dtype="uint8"), ValueError, "fits uint8, got -1"),
    ("tensor infinite", lambda: T(float("inf"), dtype="int64"), ValueError, "fits int64, got inf"),
    ("list uint8", lambda: T([[1], [300]], dtype="uint8"), ValueError, "^tensor: expected numbers that fit uint8, got 300$"),
    ("list of floats", lambda: T([1.0, 256.0], dtype="uint8"), ValueError, "fit uint8, got 256"),
    ("list nan", lambda: T([1, float("nan")], dtype="int64"), ValueError, "fit int64, got NaN"),
    ("list beyond int64", lambda: T([1e30], dtype="int64"), ValueError, "fit int64, got 1000000"),
    ("tensor of text", lambda: T("abc"), TypeError, "got str"),
    ("tensor of None", lambda: T(None), TypeError, "NoneType"),
    ("tensor ragged", lambda: T([[1, 2], [3]]), ValueError, "regular nested list"),
    ("tensor of objects", lambda: T([object()]), TypeError, "table of numbers, got list that NumPy takes for object"),
    ("format of several", lambda: f"{V:.2f}", TypeError, r"one element for '\.2f', got shape \(4,\)"),
    ("tensor complex array", lambda: T(np.zeros(2, np.complex64)), TypeError, "complex64"),
    ("tensor of dates", lambda: T(np.zeros(2, "datetime64[s]")), TypeError, "datetime64"),
    ("order of dtypes", lambda: treadle.float32 < treadle.float64, TypeError, "DType"),
    ("tensor dtype", lambda: T([1.0], dtype="float128"), TypeError, "float128"),
    ("tensor device", lambda: T([1.0], device="gpu"), ValueError, "gpu"),
    ("grad of integers", lambda: T([1], requires_grad=True), TypeError, "expected float32 or float64, got int64"),
    ("grad of integers later", lambda: T([1]).requires_grad_(), TypeError, "got int64"),
    ("rand bounds", lambda: treadle.uniform((2,), 2.0, 1.0), ValueError, "low 2 and high 1"),
    ("rand nan", lambda: treadle.uniform((2,), float("nan"), 1.0), ValueError, "NaN"),
    ("rand of integers", lambda: treadle.rand(2, dtype="int64"), TypeError, "got int64"),
    (
        "normal order",
        lambda: treadle.normal(0, 1, (2, 3)),
        TypeError,
        "^normal: expected the shape first and numbers after it, got tuple",
    ),
    (
        "bernoulli order",
        lambda: treadle.bernoulli(0.5, (2, 3)),
        TypeError,
        "^bernoulli: expected the shape first and numbers after it, got tuple",
    ),
    ("normal std", lambda: treadle.normal((2,), 0.0, -1.0), ValueError, "-1"),
    ("randint empty", lambda: treadle.randint(3, 3, (2,)), ValueError, "3 and 3"),
    ("bernoulli p", lambda: treadle.bernoulli((2,), 1.5), ValueError, r"\[0, 1\], got 1.5"),
    ("rand huge", lambda: treadle.rand(2**50), MemoryError, "expected"),
    ("seed negative", lambda: treadle.manual_seed(-1), ValueError, r"\[0, 2\*\*64\), got -1"),
    ("state of a list", lambda: treadle.Generator().set_state([1, 2]), ValueError, r"set_state: .*\[1, 2\]"),
    ("state too large", lambda: treadle.Generator().set_state((1, 2**64)), ValueError, "set_state: .*18446744073709551616"),
    (
        "NumPy generator",
        lambda: treadle.rand(3, generator=np.random.default_rng(0)),
        TypeError,
        "treadle.Generator or None, got numpy.random",
    ),
    ("seed too large", lambda: treadle.Generator(2**64), ValueError, "18446744073709551616"),
    ("seed of text", lambda: treadle.Generator("a"), (ValueError, TypeError), "'a'|str"),
]

ELEMENTWISE: list[Row] = [
    ("add shapes", lambda: X + T([1.0, 2.0]), ValueError, r"add: expected shapes that broadcast together, got \(3, 4\) and \(2,\)"),
    ("mul shapes", lambda: X * treadle.ones(2, 4), ValueError, r"\(3, 4\) and \(2, 4\)"),
    ("sub bools", lambda: T([True]) - T([True]), TypeError, "sub: expected numbers.*got bool"),
    ("div shapes", lambda: X / treadle.ones(5), ValueError, r"div: .*\(5,\)"),
    ("pow shapes", lambda: X ** treadle.ones(5), ValueError, r"pow: .*\(5,\)"),
    ("negative integer power", lambda: N ** T([-1]), ValueError, "non-negative integer exponents"),
    ("negative mask", lambda: -T([True]), TypeError, "^neg: expected numbers, got bool; use ~ to negate a mask$"),
    ("negate mask", lambda: ops.negate(T([True])), TypeError, "use ~ to negate a mask"),
    ("positive mask", lambda: +T([True]), TypeError, "^pos: expected numbers, got bool"),
    ("relu array", lambda: ops.relu(np.ones(2)), TypeError, r"^relu: expected a Tensor, got ndarray; wrap it with treadle\.tensor"),
    (
        "relu tuple",
        lambda: ops.relu((X, X)),
        TypeError,
        r"got tuple; one of several is treadle\.stack\(...\) or treadle\.concatenate",
    ),
    ("relu None", lambda: ops.relu(None), TypeError, "^relu: expected a Tensor, got NoneType$"),
    (
        "tensor of recorded",
        lambda: T([treadle.ones(1, requires_grad=True)]),
        TypeError,
        r"got Tensors that require grad; treadle\.stack",
    ),
    (
        "tensor of what NumPy cannot read",
        lambda: T(Unreadable()),
        TypeError,
        "^tensor: expected what NumPy can read, got Unreadable: no way$",
    ),
    ("std list", lambda: ops.std([1.0], 0, correction=1), TypeError, "^std: expected a Tensor, got list; wrap it"),
    ("broadcast_to list", lambda: ops.broadcast_to([1.0], 2, 1), TypeError, "^broadcast_to: expected a Tensor, got list; wrap it"),
    ("add text", lambda: X + "a", TypeError, "str"),
    ("add None", lambda: X + None, TypeError, "NoneType"),
    ("and of floats", lambda: X & X, TypeError, "float32"),
    ("invert floats", lambda: ~X, TypeError, "float32"),
    ("less shapes", lambda: treadle.ones(7) > X, ValueError, r"\(7,\)"),
    ("maximum shapes", lambda: ops.maximum(X, treadle.ones(7)), ValueError, r"maximum: .*\(7,\)"),
    ("where shapes", lambda: treadle.where(T([True, False]), X, X), ValueError, r"\(2,\)"),
    ("where floats", lambda: treadle.where(X, X, X), TypeError, "bool.*got float32"),
    ("masked_fill floats", lambda: X.masked_fill(X, 0.0), TypeError, "bool.*got float32"),
    ("clip text", lambda: X.clip("a"), TypeError, "str"),
    ("astype", lambda: X.astype("text"), TypeError, "text"),
    ("bool of many", lambda: bool(X), ValueError, r"\(3, 4\)"),
    ("float of many", lambda: float(X), ValueError, r"\(3, 4\)"),
    ("item of many", lambda: X.item(), ValueError, r"one element, got shape \(3, 4\)"),
    ("len of scalar", lambda: len(T(1.0)), TypeError, r"at least one dimension, got a tensor of shape \(\)"),
    ("index of float", lambda: [1, 2][T(1.0)], TypeError, "float32"),
    ("iter of scalar", lambda: list(T(1.0)), TypeError, r"at least one dimension, got a tensor of shape \(\)"),
]

PRODUCTS: list[Row] = [
    (
        "matmul inner",
        lambda: treadle.ones(4, 3) @ treadle.ones(5, 2),
        ValueError,
        r"matmul: inner dimensions differ, got \(4, 3\) @ \(5, 2\)",
    ),
    ("matmul scalar", lambda: X @ T(2.0), ValueError, r"matmul: .*\(\)"),
    ("matmul batch", lambda: treadle.ones(2, 3, 4) @ treadle.ones(3, 4, 5), ValueError, r"\(2, 3, 4\)|\(2,\)"),
    ("matmul vector", lambda: X @ treadle.ones(3), ValueError, r"\(3, 4\) @ \(3,\)"),
    ("linear features", lambda: F.linear(X, treadle.ones(2, 3)), ValueError, r"\(\.\.\., 3\), got \(3, 4\)"),
    ("linear bias", lambda: F.linear(X, treadle.ones(2, 4), treadle.ones(3)), ValueError, r"bias of shape \(2,\), got \(3,\)"),
    ("linear weight", lambda: F.linear(X, V), ValueError, r"got \(3, 4\) with weight \(4,\)"),
    ("linear integers", lambda: F.linear(T([[1]]), T([[1]])), TypeError, "got int64"),
]

REDUCTIONS: list[Row] = [
    ("sum axis", lambda: X.sum(2), (ValueError, IndexError), "sum: .*2"),
    ("sum axis twice", lambda: X.sum((0, 0)), ValueError, "axis 0 twice"),
    ("sum axis below", lambda: X.sum(-3), (ValueError, IndexError), "-3"),
    ("mean axis text", lambda: X.mean("a"), TypeError, "str"),
    ("max empty", lambda: treadle.zeros(0, 2).max(0), ValueError, r"at least one element to reduce, got shape \(0, 2\)"),
    ("min empty", lambda: treadle.zeros(0).min(), ValueError, r"got shape \(0,\)"),
    ("argmax empty", lambda: treadle.zeros(0).argmax(), ValueError, r"argmax: .*\(0,\)"),
    ("argmax axis", lambda: X.argmax(5), (ValueError, IndexError), "5"),
    ("softmax axis", lambda: X.softmax(2), (ValueError, IndexError), "softmax: .*2"),
    ("log_softmax axis", lambda: X.log_softmax(-3), (ValueError, IndexError), "-3"),
    ("logsumexp axis", lambda: X.logsumexp(7), (ValueError, IndexError), "7"),
    ("var axis", lambda: X.var(3), (ValueError, IndexError), "3"),
]

SHAPES: list[Row] = [
    ("reshape size", lambda: X.reshape(5, 2), ValueError, r"reshape: .*12.*|reshape: .*\(3, 4\).*\(5, 2\)"),
    ("reshape two unknown", lambda: X.reshape(-1, -1), ValueError, "-1"),
    ("reshape unknown", lambda: X.reshape(5, -1), ValueError, r"\(3, 4\)"),
    ("reshape overflow", lambda: X.reshape(2**40, 2**40), (ValueError, MemoryError), "1099511627776"),
    ("reshape too large", lambda: X.reshape(2**40, 2**40), ValueError, "expected a shape of 12 elements"),
    ("permute two of three", lambda: X[None].transpose(1, 2), ValueError, "expected 3 axes.*swapaxes"),
    ("slice of text", lambda: X["a":], TypeError, "index: expected integers or None as the start of a slice, got a"),  # type: ignore[misc]
    ("slice of floats", lambda: X[:1.5], TypeError, "index: expected .* as the stop of a slice, got 1.5"),  # type: ignore[misc]
    ("permute count", lambda: X.permute(0), ValueError, "permute|transpose"),
    ("permute twice", lambda: X.permute(0, 0), ValueError, "0"),
    (
        "index beyond 64 bits",
        lambda: X[2**70],
        IndexError,
        r"index: expected an index that fits 64 bits, got 1180591620717411303424",
    ),
    ("index of uint64", lambda: X[np.array([1], np.uint64)], IndexError, r"index: expected an array of .* got dtype uint64"),
    ("permute range", lambda: X.permute(0, 2), (ValueError, IndexError), "2"),
    ("swapaxes range", lambda: X.swapaxes(0, 2), (ValueError, IndexError), "2"),
    ("broadcast", lambda: X.broadcast_to((2, 4)), ValueError, r"\(3, 4\).*\(2, 4\)|\(2, 4\).*\(3, 4\)"),
    ("broadcast huge", lambda: V.broadcast_to((2**61, 4)) + 1, MemoryError, "2305843009213693952"),
    ("expand negative", lambda: X.expand(-2, 4), ValueError, "-2"),
    ("squeeze axis", lambda: X.squeeze(0), ValueError, "3"),
    ("squeeze range", lambda: X.squeeze(4), (ValueError, IndexError), "4"),
    ("unsqueeze range", lambda: X.unsqueeze(5), (ValueError, IndexError), "5"),
    ("unsqueeze nine", lambda: treadle.zeros(*[1] * 8).unsqueeze(0), ValueError, "8 dimensions, got 9"),
    ("flip range", lambda: X.flip(2), (ValueError, IndexError), "2"),
    ("flatten range", lambda: X.flatten(3), (ValueError, IndexError), "3"),
    ("split sizes", lambda: X.split([1, 1], 1), ValueError, "split: .*4"),
    ("split list of one", lambda: X.split([2], 1), ValueError, r"split: .*4, got \[2\]"),
    ("split negative", lambda: X.split([-1, 5], 1), ValueError, "-1"),
    ("split axis", lambda: X.split(1, 2), (ValueError, IndexError), "2"),
    ("stack none", lambda: treadle.stack([]), ValueError, "stack: "),
    ("stack shapes", lambda: treadle.stack([X, V]), ValueError, r"\(3, 4\).*\(4,\)"),
    ("stack a tensor", lambda: treadle.stack(X), TypeError, "list or tuple of tensors, got one Tensor"),
    ("concatenate shapes", lambda: treadle.concatenate([X, treadle.ones(3, 5)], 0), ValueError, r"\(3, 4\).*\(3, 5\)"),
    ("concatenate dims", lambda: treadle.concatenate([X, V]), ValueError, r"\(3, 4\).*\(4,\)"),
    ("concatenate axis", lambda: treadle.concatenate([X, X], 2), (ValueError, IndexError), "2"),
    ("one_hot range", lambda: ops.one_hot(T([3]), 3), IndexError, "3"),
    ("one_hot negative", lambda: ops.one_hot(N, -1), ValueError, "^one_hot: expected sizes of at least 0, got -1$"),
    ("one_hot floats", lambda: ops.one_hot(X, 3), TypeError, "got float32"),
]

INDEXING: list[Row] = [
    ("index range", lambda: X[3], IndexError, "3"),
    ("index below", lambda: X[-4], IndexError, "-4"),
    ("too many", lambda: X[0, 0, 0], IndexError, "3|too many|2"),
    ("two ellipses", lambda: X[..., ...], (IndexError, ValueError), "llipsis"),
    ("step zero", lambda: X[::0], ValueError, "0"),
    ("float index", lambda: X[1.5], (TypeError, IndexError), "float"),
    ("text index", lambda: X["a"], (TypeError, IndexError), "str"),
    ("float array", lambda: X[T([0.5])], (TypeError, IndexError), "float32"),
    ("array range", lambda: X[T([0, 7])], IndexError, "7"),
    ("mask shape", lambda: X[T([True, False])], (IndexError, ValueError), "2"),
    ("arrays that do not broadcast", lambda: X[T([0, 1]), T([0, 1, 2])], (IndexError, ValueError), r"\(2,\).*\(3,\)"),
    ("set shape", lambda: X.clone().__setitem__(0, treadle.ones(3)), ValueError, r"\(3,\)"),
    ("set nan", lambda: N.__setitem__(0, float("nan")), ValueError, "fits int64, got NaN"),
    ("set list", lambda: N.__setitem__(slice(0, 2), [1, float("inf")]), ValueError, "fit int64, got inf"),
    ("copy_ list", lambda: T([1], dtype="uint8").copy_([256]), ValueError, "fit uint8, got 256"),
    ("set leaf", lambda: LEAF.__setitem__(0, 1.0), RuntimeError, "leaf that requires grad"),
    ("delete", lambda: X.clone().__delitem__(0), TypeError, "expected an assignment, got a deletion"),
    ("take range", lambda: X.take(T([3])), IndexError, "3"),
    ("take floats", lambda: X.take(V), TypeError, "float32"),
    ("take axis", lambda: X.take(N, 2), (ValueError, IndexError), "2"),
    ("gather dims", lambda: X.gather(N, 1), ValueError, r"\(3,\)"),
    ("gather range", lambda: X.gather(T([[9], [0], [0]]), 1), IndexError, "9"),
    ("gather order", lambda: X.gather(1, N), TypeError, "expected an index tensor first, got int; the axis comes last"),
    (
        "index_add order",
        lambda: X.index_add(0, T([1]), X),
        TypeError,
        "expected an index tensor first, got int; the axis comes last",
    ),
    ("index_add range", lambda: X.index_add(T([5]), treadle.ones(1, 4)), IndexError, "5"),
    ("index_add shape", lambda: X.index_add(T([0]), treadle.ones(2, 4)), ValueError, r"\(2, 4\)"),
]

TAPE: list[Row] = [
    ("backward twice", _twice, RuntimeError, "retain_graph=True"),
    ("backward of many", lambda: (LEAF * 2).backward(), ValueError, r"gradient for an output of shape \(3,\), got none"),
    ("backward shape", lambda: (LEAF * 2).backward(V), ValueError, r"gradient of shape \(3,\), got \(4,\)"),
    ("backward off the tape", lambda: X.sum().backward(), RuntimeError, "requires grad"),
    ("grad off the tape", lambda: treadle.grad(X.sum(), X), RuntimeError, "requires grad"),
    ("grad unused", lambda: treadle.grad((LEAF * 2).sum(), treadle.ones(2, requires_grad=True)), RuntimeError, "allow_unused"),
    ("grad of arrays", lambda: treadle.grad(np.zeros(2), LEAF), TypeError, "Tensor, got"),
    ("grad outputs count", lambda: treadle.grad([(LEAF * 2).sum()], [LEAF], [None, None]), ValueError, "1.*2"),
    ("set grad shape", lambda: setattr(LEAF, "grad", V), ValueError, r"shape \(3,\), got float32 of shape \(4,\)"),
    ("set grad of a constant", lambda: setattr(X, "grad", X), RuntimeError, "leaf"),
    (
        "checkpoint result",
        lambda: nn.checkpoint(lambda x: 3, X),
        TypeError,
        "checkpoint: expected a function that returns one Tensor, got int",
    ),
    ("checkpoint input", lambda: nn.checkpoint(lambda x: x, np.zeros(2)), TypeError, "got ndarray"),
    (
        "copy_ recorded",
        lambda: (LEAF * 2).copy_(LEAF),
        RuntimeError,
        r"assign by index, x\[\.\.\.\] = value, or copy into the leaf",
    ),
    ("copy_ shape", lambda: X.clone().copy_(treadle.ones(5)), ValueError, r"\(5,\)"),
]

ROWS = [*CREATION, *ELEMENTWISE, *PRODUCTS, *REDUCTIONS, *SHAPES, *INDEXING, *TAPE, *LAYERS, *LOSSES, *INIT, *OPTIM]


@pytest.mark.parametrize(("call", "error", "facts"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_bad_call(call: Any, error: Any, facts: str) -> None:
    x, leaf, threads = X.numpy().copy(), LEAF.numpy().copy(), treadle.get_num_threads()
    state = treadle.default_generator().get_state()
    with pytest.raises(error, match=facts) as caught:
        call()
    assert type(caught.value) in (error if isinstance(error, tuple) else (error,))
    assert "internal error" not in str(caught.value)
    assert "panic" not in str(caught.value)
    assert np.array_equal(X.numpy(), x)
    assert np.array_equal(LEAF.numpy(), leaf)
    assert treadle.get_num_threads() == threads
    if call in [row[1] for row in CREATION]:
        assert treadle.default_generator().get_state() == state


def test_there_are_enough_of_them() -> None:
    assert len(ROWS) >= 200
