"""DLPack seen from below: the structs that capsules hold, as a consumer in C reads them and as a producer in C makes them.

The layouts are those of `dlpack.h`: `DLManagedTensor` (before 1.0, capsules named "dltensor") and `DLManagedTensorVersioned`
("dltensor_versioned").
"""

from __future__ import annotations

import ctypes as c
import gc
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

import treadle
from treadle import Tensor, nn

READ_ONLY, IS_COPIED = 1, 2
_CODES = {"int64": (0, 64), "uint8": (1, 8), "float32": (2, 32), "float64": (2, 64), "bool": (6, 8)}


class DLTensor(c.Structure):
    _fields_: ClassVar = [
        ("data", c.c_void_p),
        ("device_type", c.c_int32),
        ("device_id", c.c_int32),
        ("ndim", c.c_int32),
        ("code", c.c_uint8),
        ("bits", c.c_uint8),
        ("lanes", c.c_uint16),
        ("shape", c.POINTER(c.c_int64)),
        ("strides", c.POINTER(c.c_int64)),
        ("byte_offset", c.c_uint64),
    ]


Deleter = c.CFUNCTYPE(None, c.c_void_p)


class Managed(c.Structure):
    _fields_: ClassVar = [("tensor", DLTensor), ("context", c.c_void_p), ("deleter", Deleter)]


class Versioned(c.Structure):
    _fields_: ClassVar = [
        ("major", c.c_uint32),
        ("minor", c.c_uint32),
        ("context", c.c_void_p),
        ("deleter", Deleter),
        ("flags", c.c_uint64),
        ("tensor", DLTensor),
    ]


_pointer = c.pythonapi.PyCapsule_GetPointer
_pointer.argtypes, _pointer.restype = [c.py_object, c.c_char_p], c.c_void_p
_rename = c.pythonapi.PyCapsule_SetName
_rename.argtypes, _rename.restype = [c.py_object, c.c_char_p], c.c_int
_capsule = c.pythonapi.PyCapsule_New
_capsule.argtypes, _capsule.restype = [c.c_void_p, c.c_char_p, c.c_void_p], c.py_object


class Consumer:
    """Takes a capsule over as a C library does: renames it, reads it, and calls its deleter once."""

    def __init__(self, capsule: Any) -> None:
        self.versioned = '"dltensor_versioned"' in repr(capsule)
        name, used = (b"dltensor_versioned", b"used_dltensor_versioned") if self.versioned else (b"dltensor", b"used_dltensor")
        address = _pointer(capsule, name)
        _rename(capsule, used)
        self.managed = c.cast(address, c.POINTER(Versioned if self.versioned else Managed)).contents
        self.tensor: DLTensor = self.managed.tensor
        self.address = address

    def array(self) -> Any:
        """A copy of the elements, read from memory by strides."""
        t = self.tensor
        dtype = next(np.dtype(name) for name, code in _CODES.items() if code == (t.code, t.bits))
        shape = [t.shape[k] for k in range(t.ndim)]
        strides = [t.strides[k] for k in range(t.ndim)]
        out = np.empty(shape, dtype)
        for index in np.ndindex(*shape):
            at = t.data + t.byte_offset + dtype.itemsize * sum(i * s for i, s in zip(index, strides, strict=True))
            out[index] = np.frombuffer(c.string_at(at, dtype.itemsize), dtype)[0]
        return out

    def done(self) -> None:
        """Gives the memory back."""
        self.managed.deleter(self.address)


class OldProducer:
    """An exporter that knows nothing of versions, over an array it owns."""

    def __init__(self, array: Any, device: tuple[int, int] = (1, 0)) -> None:
        self.array, self.device, self.deleted = array, device, 0
        self.shape = (c.c_int64 * array.ndim)(*array.shape)
        self.strides = (c.c_int64 * array.ndim)(*(s // array.itemsize for s in array.strides))
        code, bits = _CODES[array.dtype.name]
        held = DLTensor(array.ctypes.data, *device, array.ndim, code, bits, 1, self.shape, self.strides, 0)
        self.managed = Managed(held, None, Deleter(self._delete))

    def _delete(self, address: int) -> None:
        self.deleted += 1

    def __dlpack__(self, stream: Any = None) -> Any:
        return _capsule(c.addressof(self.managed), b"dltensor", None)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


LAYOUTS = {
    "whole": lambda x: x,
    "transposed": lambda x: x.transpose(2, 0, 1),
    "with gaps": lambda x: x[:, ::2, 1:],
    "reversed": lambda x: x[::-1],
    "a scalar": lambda x: x[1, 2, 3],
}
VALUES = np.arange(24).reshape(2, 3, 4)


# Out of treadle ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", _CODES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_versioned_capsule_is_the_tensors_memory_and_says_that_it_is_read_only(layout: str, dtype: str) -> None:
    tensor = LAYOUTS[layout](treadle.tensor(VALUES.astype(dtype)))
    allowed = {"copy": False} if layout == "reversed" else {}
    consumer = Consumer(tensor.__dlpack__(max_version=(1, 0), **allowed))
    assert consumer.versioned
    assert consumer.managed.major == 1
    assert consumer.managed.flags == READ_ONLY
    assert (consumer.tensor.device_type, consumer.tensor.device_id, consumer.tensor.lanes) == (1, 0, 1)
    assert consumer.tensor.data + consumer.tensor.byte_offset == tensor.numpy().ctypes.data
    np.testing.assert_array_equal(consumer.array(), LAYOUTS[layout](VALUES.astype(dtype)))
    consumer.done()


@pytest.mark.parametrize("dtype", _CODES)
@pytest.mark.parametrize("options", [{}, {"stream": None}, {"max_version": None}, {"max_version": (0, 8)}], ids=str)
def test_an_older_capsule_is_a_copy_that_may_be_written_to(dtype: str, options: dict[str, Any]) -> None:
    tensor = treadle.tensor(VALUES.astype(dtype)).transpose(1, 0, 2)
    consumer = Consumer(tensor.__dlpack__(**options))
    assert not consumer.versioned
    assert consumer.tensor.data != tensor.numpy().ctypes.data
    np.testing.assert_array_equal(consumer.array(), tensor.numpy())
    c.memset(consumer.tensor.data, 255, 8)
    np.testing.assert_array_equal(tensor.numpy(), VALUES.astype(dtype).transpose(1, 0, 2))
    consumer.done()


@pytest.mark.parametrize("version", [(1, 0), (1, 3), (2, 0)])
def test_later_versions_get_the_newest_there_is(version: tuple[int, int]) -> None:
    consumer = Consumer(treadle.tensor([1.0, 2.0]).__dlpack__(max_version=version))
    assert consumer.versioned
    assert consumer.managed.major == 1
    consumer.done()


def test_a_copy_says_so_and_may_be_written_to() -> None:
    tensor = treadle.tensor([1.0, 2.0])
    consumer = Consumer(tensor.__dlpack__(max_version=(1, 0), copy=True, dl_device=(1, 0)))
    assert consumer.managed.flags == IS_COPIED
    c.memset(consumer.tensor.data, 0, 8)
    assert tensor.tolist() == [1, 2]
    consumer.done()
    shared = Consumer(tensor.__dlpack__(max_version=(1, 0), copy=False, dl_device=None))
    assert shared.managed.flags == READ_ONLY
    shared.done()


def test_memory_lives_as_long_as_a_consumer_holds_it_and_no_longer() -> None:
    held = Consumer(treadle.full((1_000_000,), 7.0).__dlpack__(max_version=(1, 0)))
    live = treadle.memory_stats()["live_bytes"]
    gc.collect()
    treadle.zeros(1_000_000)
    assert np.frombuffer(c.string_at(held.tensor.data, 4_000_000), np.float32).tolist() == [7.0] * 1_000_000
    held.done()
    gc.collect()
    assert treadle.memory_stats()["live_bytes"] <= live - 4_000_000
    treadle.full((10,), 1.0).__dlpack__(max_version=(1, 0))  # a capsule that nobody takes gives its memory back itself


def test_other_devices_and_unknown_options_are_refused() -> None:
    tensor = treadle.tensor([1.0])
    for device in ((2, 0), (1, 1)):
        for copy in (None, True):
            with pytest.raises(BufferError, match="unsupported device"):
                tensor.__dlpack__(dl_device=device, copy=copy)
    for options in ({"nonsense": 1}, {"max_version": 1}):
        with pytest.raises(TypeError):
            tensor.__dlpack__(**options)
    with pytest.raises(RuntimeError, match="stream"):
        tensor.__dlpack__(stream=3)


def test_an_older_consumer_that_forbids_copies_is_told_why_it_gets_nothing() -> None:
    tensor = treadle.tensor([1.0])
    for options in ({}, {"max_version": None}, {"max_version": (0, 8)}):
        with pytest.raises(BufferError, match="readonly"):
            tensor.__dlpack__(copy=False, **options)


def test_parameters_share_and_updates_do_not_reach_the_consumer() -> None:
    parameter = nn.Parameter(treadle.ones(3))
    consumer = Consumer(parameter.__dlpack__(max_version=(1, 0)))
    (parameter * 2).sum().backward()
    treadle.optim.SGD([parameter], lr=0.5).step()
    assert parameter.tolist() == [0, 0, 0]
    assert consumer.array().tolist() == [1, 1, 1]
    consumer.done()


# Into treadle -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", _CODES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_older_producer_is_shared_until_the_last_view_is_gone(layout: str, dtype: str) -> None:
    producer = OldProducer(LAYOUTS[layout](VALUES.astype(dtype))[...])
    tensor = treadle.from_dlpack(producer)
    assert tensor.dtype == dtype
    np.testing.assert_array_equal(tensor.numpy(), producer.array)
    shares = dtype != "bool" and producer.array.size > 0
    gc.collect()
    assert producer.deleted == (not shares)
    assert np.shares_memory(tensor.numpy(), producer.array) == shares
    view = tensor.T
    del tensor
    gc.collect()
    assert producer.deleted == (not shares)
    np.testing.assert_array_equal((view * 1).numpy(), producer.array.T)
    del view
    gc.collect()
    assert producer.deleted == 1


@pytest.mark.parametrize("dtype", _CODES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_copy_is_done_with_its_producer(layout: str, dtype: str) -> None:
    producer = OldProducer(LAYOUTS[layout](VALUES.astype(dtype))[...])
    tensor = treadle.from_dlpack(producer, copy=True)
    gc.collect()
    assert producer.deleted == 1
    producer.array[...] = 1
    np.testing.assert_array_equal(tensor.numpy(), LAYOUTS[layout](VALUES.astype(dtype)))


def test_memory_of_others_is_never_written() -> None:
    source = np.arange(4.0)
    tensor = treadle.from_dlpack(source)
    assert tensor.numpy().ctypes.data == source.ctypes.data
    source[0] = 5
    assert tensor.tolist() == [5, 1, 2, 3]
    tensor += 1
    assert source.tolist() == [5, 1, 2, 3]
    parameter = nn.Parameter(treadle.from_dlpack(source))
    (parameter * 2).sum().backward()
    treadle.optim.SGD([parameter], lr=0.5).step()
    treadle.from_dlpack(source)[0] = 9
    treadle.from_dlpack(source).copy_(treadle.zeros(4))
    assert parameter.tolist() == [4, 0, 1, 2]
    assert source.tolist() == [5, 1, 2, 3]


def test_memory_of_pytorch_is_shared() -> None:
    torch = pytest.importorskip("torch", reason="the tests do not depend on PyTorch; older producers above stand for it")
    theirs = torch.arange(6, dtype=torch.float32).reshape(2, 3).T
    ours = treadle.from_dlpack(theirs)
    assert ours.numpy().ctypes.data == theirs.data_ptr()
    theirs[2, 1] = 7
    assert ours.tolist() == [[0, 3], [1, 4], [2, 7]]


def test_memory_outlives_the_array_it_came_from() -> None:
    tensor = treadle.from_dlpack(np.arange(1_000_000.0))
    gc.collect()
    np.ones(1_000_000)
    assert tensor.sum().item() == 499999500000


def test_arrays_with_dlpack_come_in() -> None:
    read_only = np.arange(3.0)
    read_only.flags.writeable = False
    for array in (np.arange(3.0), read_only, pa.array([0.0, 1.0, 2.0]), treadle.tensor([0.0, 1.0, 2.0])):
        for copy in (None, False, True):
            tensor = treadle.from_dlpack(array, device="cpu", copy=copy)
            assert isinstance(tensor, Tensor)
            assert tensor.tolist() == [0, 1, 2]
    assert treadle.from_dlpack(np.arange(2, dtype=np.float16)).dtype == "float32"
    assert treadle.from_dlpack(np.arange(2, dtype=np.int16)).dtype == "int64"


def test_what_cannot_come_in_is_refused() -> None:
    array = np.arange(3.0)
    with pytest.raises(TypeError, match=r"^from_dlpack: expected an object with __dlpack__ and __dlpack_device__, got list$"):
        treadle.from_dlpack([1.0])
    with pytest.raises(ValueError, match=r"^from_dlpack: expected memory of the CPU, device \(1, 0\), got device \(2, 1\)$"):
        treadle.from_dlpack(OldProducer(array, (2, 1)))
    with pytest.raises(ValueError, match=r'^from_dlpack: expected device None or "cpu" \(treadle runs on the CPU\), got \'cuda\'$'):
        treadle.from_dlpack(array, device="cuda")
    for other in (np.ones(2, bool), np.ones(2, np.float16), np.ones(2, np.int32)):
        with pytest.raises(ValueError, match=rf"^from_dlpack: expected memory that a tensor can share, got {other.dtype} with"):
            treadle.from_dlpack(other, copy=False)
    producer = OldProducer(array)
    producer.managed.tensor.code, producer.managed.tensor.bits = 4, 16  # bfloat16
    with pytest.raises(TypeError, match=r"^from_dlpack: expected memory that NumPy can read, got "):
        treadle.from_dlpack(producer)
    with pytest.raises(TypeError, match=r"^from_dlpack: expected memory that NumPy can read, got numpy.ndarray of >f4: "):
        treadle.from_dlpack(np.ones(1, ">f4"))
    with pytest.raises(TypeError, match=r"^tensor: expected .*, got dtype complex64$"):
        treadle.from_dlpack(np.ones(1, np.complex64))


# __array__ --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, np.float32, "float64", np.dtype("int64")], ids=str)
@pytest.mark.parametrize("copy", [None, True, False])
def test_array_takes_a_type_and_copy(dtype: Any, copy: bool | None) -> None:
    tensor = treadle.tensor([1.0, 2.0])
    converts = dtype not in (None, np.float32)
    if copy is False and converts:
        with pytest.raises(ValueError, match="Unable to avoid copy"):
            tensor.__array__(dtype, copy=copy)
        return
    array = tensor.__array__(dtype, copy=copy)
    assert array.dtype == (np.float32 if dtype is None else dtype)
    assert array.tolist() == [1, 2]
    apart = copy is True or converts
    assert array.flags.writeable == apart
    assert np.shares_memory(array, tensor.numpy()) == (not apart)


def test_array_is_what_numpy_calls() -> None:
    tensor = treadle.tensor([1.0, 2.0])
    assert tensor.__array__().tolist() == tensor.__array__(np.float64).tolist() == [1, 2]
    assert np.array(tensor, copy=None).base is not None
    assert np.array(tensor, dtype=np.float64, copy=True).flags.writeable
    assert Tensor.__array_ufunc__ is None
