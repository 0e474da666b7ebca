"""Tensors as Python meets them: what is in a cell and how it changes, numbers of every kind beside them, and views of nothing."""

from __future__ import annotations

import copy
import operator
import pickle
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn, ops, optim
from treadle.nn import functional as F

T = treadle.tensor


def same(got: Any, want: Any) -> None:
    """One shape, one type, the same elements."""
    assert (got.shape, str(got.dtype)) == (np.shape(want), str(want.dtype))
    np.testing.assert_array_equal(got.numpy(), want)


def test_lists_of_numbers_are_assigned_in_the_type_of_the_tensor() -> None:
    x, numbers = treadle.zeros(2, dtype="float64"), treadle.zeros(3, dtype="uint8")
    x[:] = [0.1, 2**53 + 2]
    numbers[:] = [1.9, True, -0.5]
    assert x.tolist() == [0.1, 2**53 + 2]
    assert numbers.tolist() == [1, 1, 0]
    numbers[:] = np.array([300, 301, 302])
    assert numbers.tolist() == [44, 45, 46]


# Cells --------------------------------------------------------------------------

ASSIGNED = {
    "itself": "x.data = x",
    "a list of itself": "x.data = [x]",
    "an object that reads it": "x.data = Reader()",
    "an array that NumPy casts, beside another thread": """
reading = threading.Thread(target=lambda: [x.shape for _ in range(200_000)])
reading.start()
while reading.is_alive():
    x.data = np.ones(100_000, np.float16)
""",
}


@pytest.mark.parametrize("assigned", ASSIGNED.values(), ids=ASSIGNED)
def test_data_may_read_what_it_replaces(assigned: str) -> None:
    code = f"""
import sys, threading
sys.path[:] = {sys.path!r}
import numpy as np, treadle
x = treadle.tensor([1.0, 2.0])
class Reader:
    def __array__(self, dtype=None, copy=None):
        return x.numpy() * 1
{assigned}
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


WRITES: dict[str, Any] = {
    "copy_": lambda x: x.copy_(treadle.zeros(2)),
    "index": lambda x: x.__setitem__(0, 7.0),
    "data": lambda x: setattr(x, "data", [7.0, 7.0]),
    "batch_norm": lambda x: F.batch_norm(treadle.randn(4, 2), x, treadle.ones(2), training=True),
}


@pytest.mark.parametrize(("op", "write"), WRITES.items(), ids=WRITES)
@pytest.mark.parametrize("part", ["data", "grad"])
def test_what_data_and_grad_give_is_read_only(part: str, op: str, write: Any) -> None:
    w = T([1.0, 2.0], requires_grad=True)
    (w * w).sum().backward()
    read = getattr(w, part)
    before = read.tolist()
    with pytest.raises(ValueError, match=rf"^{op}: expected a tensor of its own, got the {part} of another, .*assign x\.{part} ="):
        write(read)
    assert read.tolist() == before == getattr(w, part).tolist()
    for own in (read.detach(), read.clone(), read * 1, +read, read.data.detach(), copy.copy(read), copy.deepcopy(read)):
        write(own)
    write(pickle.loads(pickle.dumps(read)))
    setattr(w, part, read * 2)
    assert getattr(w, part).tolist() == [2 * x for x in before]


def test_a_frozen_parameter_keeps_its_place_in_graphs() -> None:
    layer, x = nn.Linear(4, 1), treadle.ones(3, 4)
    loss = layer(x).sum()
    layer.requires_grad_(False)
    held = layer(x)
    layer.requires_grad_(True)
    loss.backward()
    assert not held.requires_grad
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[3.0] * 4]


def test_a_frozen_parameter_keeps_its_gradient() -> None:
    weight = nn.Parameter(treadle.ones(2))
    (weight * 3).sum().backward()
    weight.requires_grad_(False)
    weight.copy_(T([5.0, 6.0]))
    assert weight.grad is not None
    assert weight.grad.tolist() == [3.0, 3.0]
    weight.requires_grad_(True)
    (weight * weight).sum().backward()
    assert weight.grad.tolist() == [13.0, 15.0]
    weight.requires_grad_(False)
    optim.SGD([weight], lr=0.1).zero_grad()
    assert weight.grad is None


# Indices ------------------------------------------------------------------------

_X = np.arange(60.0).reshape(3, 4, 5)
TRUTHS: dict[str, Any] = {
    "True": True,
    "False": False,
    "np.True_": np.True_,
    "an array": np.array(False),
    "after a slice": (slice(None), True),
    "beside an integer": (1, True),
    "beside an array": (True, [0, 2]),
    "false beside an array": ([2], False),
    "apart from an array": (True, slice(None), [0, 2]),
    "beside an ellipsis": (..., False),
}


@pytest.mark.parametrize("key", TRUTHS.values(), ids=TRUTHS)
def test_one_truth_is_an_axis(key: Any) -> None:
    same(T(_X)[key], _X[key])
    changed, x = _X.copy(), T(_X)
    x[(x > 99).any()] = 7
    changed[key] = -1
    x[key] = -1
    same(x, changed)


@pytest.mark.parametrize(
    "key", [(slice(None), [0, 1], ..., [2, 3]), ([0, 1], ..., [2, 3], 1), (0, ..., [2, 3]), (..., [0, 1], 2, [3, 3])]
)
def test_an_ellipsis_stands_between_arrays_even_if_it_is_none(key: Any) -> None:
    same(T(_X)[key], _X[key])
    changed, x = _X.copy(), T(_X)
    changed[key] = np.arange(changed[key].size).reshape(changed[key].shape)
    x[key] = treadle.arange(x[key].size).reshape(x[key].shape)
    same(x, changed)


def test_a_result_is_not_changed_behind_the_tape() -> None:
    p = treadle.ones(3, requires_grad=True)
    y = p * 2
    with treadle.no_grad(), pytest.raises(RuntimeError, match="expected no assignment under no_grad"):
        y[0] = 0.0
    y[0] = 0.0
    y.sum().backward()
    assert p.grad is not None
    assert p.grad.tolist() == [0.0, 2.0, 2.0]


def test_a_value_that_was_overwritten_has_no_gradient() -> None:
    v = T([1.0, 2.0, 3.0], requires_grad=True)
    x = treadle.zeros(3) * 1.0
    x[[0, 0, 2]] = v
    (x * T([5.0, 6.0, 7.0])).sum().backward()
    assert x.tolist() == [2.0, 0.0, 3.0]
    assert v.grad is not None
    assert v.grad.tolist() == [0.0, 5.0, 7.0]


def waits(work: Any) -> float:
    """The longest pause of another thread while `work` runs, as a share of its time."""
    gaps, stop = [0.0], threading.Event()

    def tick() -> None:
        last = time.perf_counter()
        while not stop.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.perf_counter()
    work()
    taken = time.perf_counter() - start
    stop.set()
    thread.join()
    return max(gaps) / taken


_MANY = treadle.zeros(4_000_000, dtype="int64")
LONG_WORK: dict[str, Any] = {
    "read": lambda: treadle.zeros(1000)[_MANY],
    "write": lambda: treadle.zeros(1000).__setitem__(_MANY, 1.0),
    "mask": lambda: treadle.zeros(4_000_000).__setitem__(_MANY == 0, 1.0),
    "take": lambda: treadle.zeros(1000).take(_MANY),
    "arange": lambda: treadle.arange(20_000_000),
    "one_hot": lambda: ops.one_hot(_MANY, 8),
    "look at what another thread writes": lambda: _look_at_what_is_written(),
}


def _look_at_what_is_written() -> None:
    x = treadle.zeros(1000)
    writer = threading.Thread(target=x.__setitem__, args=(_MANY, 1.0))
    writer.start()
    while writer.is_alive():
        assert x.shape == (1000,)


@pytest.mark.parametrize("name", LONG_WORK)
def test_other_threads_run_beside_long_indexing(name: str) -> None:
    assert any(waits(LONG_WORK[name]) < 0.5 for _ in range(40)), "expected one of 40 tries on a busy machine"


# Numbers ------------------------------------------------------------------------


def test_numbers_of_numpy_have_their_types_in_creation() -> None:
    big = 2**53 + 1
    same(treadle.arange(np.int64(5)), np.arange(5))
    same(treadle.arange(T(3)), np.arange(3))
    same(treadle.arange(np.float32(2)), np.arange(2, dtype=np.float32))
    same(treadle.full((2,), np.int64(7)), np.full(2, 7))
    same(treadle.full((2,), np.bool_(True)), np.full(2, True))
    same(treadle.full((2,), np.float64(0.1)), np.full(2, 0.1))
    same(treadle.full((2,), T(2, dtype="uint8")), np.full(2, 2, np.uint8))
    same(treadle.full((1,), np.int64(big), dtype="int64"), np.full(1, big))
    same(treadle.full_like(T([0]), np.int64(big)), np.full(1, big))
    same(T([1, 2, 3]).clip(np.int64(0), np.int64(2)), np.array([1, 2, 2]))
    same(T([1.0, 2.0]).clip(T(0), np.float64(1.5)), np.array([1, 1.5], np.float32))


def test_large_integers_stay_exact() -> None:
    assert treadle.arange(2**53, 2**53 + 3).tolist() == [2**53, 2**53 + 1, 2**53 + 2]
    assert treadle.arange(2**62, 2**62 + 5).size == 5
    assert treadle.arange(2**63 - 1, -(2**63), -(2**62)).size == 4
    assert treadle.arange(5, 0, -2).tolist() == [5, 3, 1]
    assert treadle.arange(3, 3).size == treadle.arange(5, 2).size == 0
    assert operator.index(T(2**53 + 1)) == 2**53 + 1


def test_integers_beyond_the_type_are_compared_by_value() -> None:
    u, i, f = T([1, 255], dtype="uint8"), T([1, 2**63 - 1]), T([1.0, 2.0**64])
    assert (f == 2**64).tolist() == [False, True]
    assert (u == 300).tolist() == [False, False]
    assert (u > -1).tolist() == (u < 300).tolist() == [True, True]
    assert (i < 2**63).tolist() == (i > -(2**63) - 1).tolist() == (i != 2**64).tolist() == [True, True]
    assert ops.equal(u, 256).tolist() == [False, False]


def test_division_widens_first() -> None:
    u = T([1, 255], dtype="uint8")
    same(u / 256, np.array([1 / 256, 255 / 256]))
    same(ops.div(u, -2), np.array([-0.5, -127.5]))
    same(2**70 / T([2]), np.array([2.0**69]))


def test_arithmetic_with_integers_beyond_the_type_says_so() -> None:
    same(T([1.0]) + 2**64, np.array([2.0**64], np.float32))
    with pytest.raises(ValueError, match=r"fits int64, got 1.8446744073709552e19"):
        T([1]) + 2**64
    with pytest.raises(ValueError, match="fits uint8, got 300"):
        T([1], dtype="uint8") + 300
    with pytest.raises(ValueError, match="fits float32, got"):
        T([1.0]) * 10**400


def test_a_ragged_list_is_no_operand() -> None:
    with pytest.raises(ValueError, match="regular nested list"):
        _ = T([1, 2]) == [1, [2]]
    assert bool(T([1, 2]) == "a") is False


@pytest.mark.parametrize(
    "other", [np.array([1, 2], "uint64"), np.uint64(1), np.array([1, None]), np.array(["a", "b"]), np.complex64(1)]
)
def test_what_numpy_holds_and_no_type_does_is_no_operand(other: Any) -> None:
    for compare in (operator.eq, operator.ne, operator.lt, operator.add):
        with pytest.raises(TypeError, match="tensor: expected an array of floats, integers or bools, got dtype"):
            compare(T([1, 2]), other)
    assert not any(bool(T([1, 2]) == foreign) for foreign in (None, object(), [object()]))


@pytest.mark.parametrize(
    ("dtype", "value"), [("int64", 2**53 + 1), ("int64", 2.0), ("uint8", 255), ("bool", True), ("float32", 1), ("float64", -np.inf)]
)
def test_masked_fill_keeps_the_type(dtype: str, value: Any) -> None:
    x = np.array([0, 1, 1], dtype)
    same(T(x).masked_fill(T(x == 0), value), np.where(x == 0, np.array(value, dtype), x))


@pytest.mark.parametrize(
    ("dtype", "value"), [("int64", 1.5), ("int64", 2.0**63), ("int64", float("nan")), ("uint8", 256), ("uint8", -1), ("bool", 2)]
)
def test_masked_fill_refuses_what_the_type_does_not_hold(dtype: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"masked_fill: expected a value that fits {dtype}"):
        T([1], dtype=dtype).masked_fill(T([True]), value)


def test_an_embedding_takes_numbers_of_rows() -> None:
    table = nn.Embedding(5, 2, padding_idx=0)
    for bad in ([-5], [-1, 1], [5]):
        with pytest.raises(IndexError, match=rf"embedding: expected indices in \[0, 5\), got {max(bad, key=abs)}"):
            table(T(bad))
    with pytest.raises(TypeError, match="expected an int64 index, got uint8"):
        table(T([1], dtype="uint8"))


# Views of nothing -----------------------------------------------------------------

_E = treadle.zeros(0, 3, requires_grad=True)[:, 1:]
NOTHING: dict[str, Any] = {
    "layer_norm": lambda: F.layer_norm(_E, (2,)),
    "rms_norm": lambda: F.rms_norm(_E, (2,)),
    "group_norm": lambda: F.group_norm(_E, 2),
    "softmax": lambda: _E.softmax(1).sum().backward(),
    "dropout": lambda: F.dropout(_E, 0.5),
    "cross_entropy": lambda: F.cross_entropy(_E, treadle.zeros(0, dtype="int64"), reduction="sum"),
    "argmax": lambda: _E.argmax(1),
    "one_hot": lambda: ops.one_hot(treadle.zeros(0, 3, dtype="int64")[:, 1:], 4),
    "eye": lambda: treadle.eye(0, 2**62),
}


@pytest.mark.parametrize("name", NOTHING)
def test_a_view_of_nothing(name: str) -> None:
    NOTHING[name]()


@pytest.mark.parametrize("step", [optim.SGD, optim.Adam, optim.RMSprop])
def test_steps_of_nothing(step: Any) -> None:
    parameter = nn.Parameter(treadle.zeros(0, 2))
    parameter.grad = treadle.zeros(0, 3)[:, 1:]
    assert optim.clip_grad_norm_([parameter], 1.0) == 0
    optim.clip_grad_value_([parameter], 1.0)
    step([parameter], lr=0.1).step()


@pytest.mark.parametrize("dtype", [treadle.float32, treadle.float64, treadle.int64, treadle.uint8, treadle.bool_], ids=str)
def test_copies_of_an_element_type_are_the_same_object(dtype: Any) -> None:
    layer = treadle.nn.Identity()
    layer.dtype = dtype
    for twin in (copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        assert twin(dtype) is dtype
        assert twin(layer).dtype is dtype


def test_a_deep_copy_of_a_recorded_result_is_refused() -> None:
    x = treadle.ones(2, requires_grad=True)
    with pytest.raises(
        RuntimeError, match=r"^deepcopy: expected a tensor made by the user, got the result of a recorded mul; use detach\(\)"
    ):
        copy.deepcopy([x * 2])
    assert copy.deepcopy((x * 2).detach()).tolist() == [2.0, 2.0]
    assert copy.deepcopy(x).requires_grad
