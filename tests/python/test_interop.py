"""Tensors and the arrays of other libraries: what is shared, what is copied, and what may be written to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import treadle
from treadle import Tensor, nn
from treadle.data import TensorDataset

DTYPES = ["float32", "float64", "int64", "uint8", "bool"]
LAYOUTS: dict[str, tuple[Tensor, np.ndarray]] = {}
_VALUES = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
for _name, _view in {
    "whole": lambda x: x,
    "transposed": lambda x: x.transpose(2, 0, 1),
    "with gaps": lambda x: x[:, ::2, 1:],
    "reversed": lambda x: x[::-1],
    "empty": lambda x: x[:, :0],
    "a scalar": lambda x: x[1, 2, 3],
}.items():
    LAYOUTS[_name] = (_view(treadle.tensor(_VALUES)), _view(_VALUES))


class Older:
    """A tensor seen by a consumer that knows nothing of versions, as before DLPack 1.0."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __dlpack__(self, stream: Any = None) -> Any:
        return self.tensor.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.tensor.__dlpack_device__()


# numpy() and __array__ ------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_numpy_is_a_read_only_view_of_the_same_memory(layout: str) -> None:
    tensor, want = LAYOUTS[layout]
    array = tensor.numpy()
    np.testing.assert_array_equal(array, want)
    assert not array.flags.writeable
    assert np.shares_memory(array, tensor.numpy()) == (array.size > 0)
    with pytest.raises(ValueError, match="read-only"):
        array[...] = 0
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


def test_an_array_keeps_its_value_when_the_tensor_changes() -> None:
    parameter = nn.Parameter(treadle.ones(3))
    array = parameter.numpy()
    parameter.copy_(treadle.zeros(3))
    assert array.tolist() == [1, 1, 1]
    tensor = treadle.zeros(3)
    array = np.asarray(tensor)
    tensor[0] = 5
    assert array.tolist() == [0, 0, 0]


def test_an_array_outlives_its_tensor() -> None:
    array = treadle.full((1000,), 7.0).numpy()
    for _ in range(10):
        treadle.zeros(1000)
    assert array.tolist() == [7] * 1000


def test_array_follows_numpys_rules_for_copies() -> None:
    tensor = treadle.tensor([1.0, 2.0])
    assert np.shares_memory(np.asarray(tensor), tensor.numpy())
    assert np.shares_memory(np.asarray(tensor, copy=False), tensor.numpy())
    copied = np.array(tensor)
    copied[0] = 9
    assert tensor.tolist() == [1, 2]
    assert np.asarray(tensor, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="Unable to avoid copy"):
        np.asarray(tensor, np.float64, copy=False)


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint8", "bool"]
)
def test_arrays_are_copied_and_widened(dtype: str) -> None:
    kept = {"float16": "float32"} | {name: name for name in DTYPES}
    array = np.array([0, 1, 1], dtype)
    tensor = treadle.tensor(array)
    assert tensor.dtype == kept.get(dtype, "int64")
    array[0] = 1
    assert tensor.tolist() == [0, 1, 1]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool", "float16", ">f8", "int32"])
def test_arrays_in_any_order_are_copied_in_row_major_order(dtype: str) -> None:
    base = np.random.default_rng(0).integers(0, 2, (6, 35, 40)).astype(dtype)
    table = np.zeros(7, [("a", "u1"), ("b", dtype), ("c", dtype, (2, 3))])
    table["b"], table["c"] = base[0, 0, :7], base[1, :7, :6].reshape(7, 2, 3)
    aligned = np.zeros(7, np.dtype([("b", dtype), ("c", "u1")], align=True))
    views = [base.T, base[::-1, ::2], base[:, :, 3], base.transpose(1, 0, 2)[..., ::-3], np.asfortranarray(base), base[:, ::-1, :0]]
    views += [np.broadcast_to(base[0, :, :1], (3, 35, 8)), table["b"], table["c"].transpose(0, 2, 1), aligned["b"], base[0, 0, 0]]
    for array in views:
        t = treadle.tensor(array)
        wanted = np.array(array, order="C")
        assert t.numpy().flags.c_contiguous
        np.testing.assert_array_equal(t.numpy(), wanted, strict=False)
        if array.size and array.flags.writeable:
            array[...] = wanted == 0
            np.testing.assert_array_equal(t.numpy(), wanted)
            array[...] = wanted


def test_empty_parts_of_structured_and_misaligned_arrays_are_empty_tensors() -> None:
    records = np.zeros(3, [("flag", "i1"), ("x", "f8")])
    misaligned = np.zeros(33, "i1")[1:].view("f8")
    for array in (records["x"][:0], records["x"][1:1], misaligned[:0], records["flag"].astype(bool)[:0]):
        assert treadle.tensor(array).shape == (0,)
    assert treadle.tensor(records["x"]).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", ["uint64", "complex64", "U3"])
def test_arrays_that_no_type_holds_are_refused(dtype: str) -> None:
    with pytest.raises(TypeError, match=r"^tensor: expected .*, got "):
        treadle.tensor(np.zeros(2, dtype))


# operators and ufuncs ---------------------------------------------------------------


def test_masked_elements_are_no_numbers() -> None:
    array = np.ma.masked_array([1.0, -999.0, 3.0], mask=[False, True, False])
    for use in (treadle.tensor, TensorDataset, lambda x: treadle.ones(3) + x, lambda x: treadle.ones(3).copy_(x)):
        with pytest.raises(ValueError, match=r"^tensor: expected an array without masked elements, got 1; fill them in"):
            use(array)
    assert treadle.tensor(array.filled(2)).tolist() == [1, 2, 3]
    assert treadle.tensor(array[::2]).tolist() == [1, 3]
    assert treadle.tensor(np.ma.masked_array([1.0, 2.0])).tolist() == [1, 2]


def test_operators_with_arrays_stay_on_the_tape_from_both_sides() -> None:
    array, weight = np.float32([3, 4]), treadle.tensor([1.0, 2.0], requires_grad=True)
    for mixed in (array * weight, weight * array, array @ weight, array - weight, np.float32(2) * weight, array / weight):
        assert isinstance(mixed, Tensor)
        assert mixed.grad_fn is not None
    assert (array > weight).tolist() == [True, True]


def test_ufuncs_do_not_take_tensors_off_the_tape_silently() -> None:
    tensor = treadle.tensor([1.0, 2.0])
    for call in (lambda: np.exp(tensor), lambda: np.add(tensor, tensor), lambda: np.sum(tensor), lambda: np.mean(tensor)):
        with pytest.raises(TypeError):
            call()
    array = np.ones(2, np.float32)
    with pytest.raises(TypeError, match="__array_ufunc__=None"):
        array += tensor


def test_functions_that_convert_get_arrays() -> None:
    tensor = treadle.tensor([1.0, 2.0])
    for got, want in (
        (np.concatenate([tensor, tensor]), [1, 2, 1, 2]),
        (np.stack([tensor, tensor]), [[1, 2], [1, 2]]),
        (np.where(np.array([True, False]), tensor, 0), [1, 0]),
    ):
        assert type(got) is np.ndarray
        assert got.tolist() == want


# DLPack ------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_versioned_consumer_shares_the_memory_and_may_not_write(layout: str) -> None:
    tensor, want = LAYOUTS[layout]
    array = np.from_dlpack(tensor)
    np.testing.assert_array_equal(array, want)
    if layout == "reversed":  # which PyTorch does not take
        assert array.flags.c_contiguous
        array = np.from_dlpack(tensor, copy=False)
    assert array.strides == tensor.numpy().strides
    assert not array.flags.writeable
    assert np.shares_memory(array, tensor.numpy()) == (array.size > 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_older_consumer_gets_a_copy_of_its_own(layout: str) -> None:
    tensor, want = LAYOUTS[layout]
    array = np.from_dlpack(Older(tensor))
    np.testing.assert_array_equal(array, want)
    assert not np.shares_memory(array, tensor.numpy())


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_element_type_goes_out_and_comes_back(dtype: str) -> None:
    tensor = treadle.tensor(np.array([[0, 1], [1, 0]], dtype))
    for array in (np.from_dlpack(tensor), np.from_dlpack(Older(tensor))):
        assert array.dtype == dtype
        back = treadle.tensor(array)
        assert back.dtype == tensor.dtype
        assert back.tolist() == tensor.tolist()


def test_a_copy_on_request_is_writeable_and_apart() -> None:
    tensor = treadle.tensor([1.0, 2.0])
    array = np.from_dlpack(tensor, copy=True)
    array[0] = 9
    assert tensor.tolist() == [1, 2]
    assert np.shares_memory(np.from_dlpack(tensor, copy=False), tensor.numpy())


def test_capsules_have_the_name_of_their_version_and_the_device_is_the_cpu() -> None:
    tensor = treadle.tensor([1.0])
    assert '"dltensor_versioned"' in repr(tensor.__dlpack__(max_version=(1, 0)))
    assert '"dltensor"' in repr(tensor.__dlpack__(max_version=(0, 8)))
    assert '"dltensor"' in repr(tensor.__dlpack__())
    assert tensor.__dlpack_device__() == (1, 0)
    with pytest.raises(BufferError):
        tensor.__dlpack__(dl_device=(2, 0))
    with pytest.raises(TypeError):
        tensor.__dlpack__(nonsense=1)


def test_a_shared_array_keeps_its_value_and_its_memory() -> None:
    parameter = nn.Parameter(treadle.ones(3))
    array = np.from_dlpack(parameter)
    parameter.copy_(treadle.zeros(3))
    assert array.tolist() == [1, 1, 1]
    del parameter
    treadle.zeros(3)
    assert array.tolist() == [1, 1, 1]


# pandas ------------------------------------------------------------------------------


def test_columns_and_tables_of_pandas_become_tensors() -> None:
    frame = pd.DataFrame({"a": [1.5, 2.0], "b": [1, 2], "c": [True, False]})
    for name, dtype in (("a", "float64"), ("b", "int64"), ("c", "bool")):
        assert treadle.tensor(frame[name]).dtype == dtype
        assert treadle.tensor(frame[name]).tolist() == frame[name].tolist()
    assert treadle.tensor(frame[["a", "b"]]).tolist() == [[1.5, 1], [2, 2]]
    missing = treadle.tensor(pd.Series([1, None], dtype="Int64"))
    assert missing.dtype == "float64"
    assert missing.isnan().tolist() == [False, True]
    with pytest.raises(TypeError, match=r"^tensor: expected "):
        treadle.tensor(pd.Series(["x"]))


def test_tensors_become_columns_of_pandas() -> None:
    tensor = treadle.tensor([1.0, 2.0])
    frame = pd.DataFrame({"t": tensor, "u": tensor.numpy()})
    assert frame["t"].tolist() == frame["u"].tolist() == [1, 2]
    assert frame["t"].dtype == np.float32
