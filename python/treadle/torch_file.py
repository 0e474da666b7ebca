"""Reading the state_dict files of PyTorch, without PyTorch and without running what they say.

A file is a zip of uncompressed records: `data.pkl` describes the tensors, `data/0`, `data/1`, … hold their elements. The pickle is
read by the small stack machine below. Invariants: it knows opcodes that build plain values, and the few names of `_REBUILT` and
`_STORAGES`; it imports and calls nothing. Nothing is allocated that the size of the file does not justify.
Source: PyTorch's `torch/serialization.py`; the pickle opcodes are those of Python's `pickletools`.
"""

from __future__ import annotations

import itertools
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from treadle._core import Tensor
from treadle.serialization import SerializationError, from_bfloat16

__all__ = ["read"]

_STORAGES: dict[str, type[np.generic]] = {
    "torch.DoubleStorage": np.float64,
    "torch.FloatStorage": np.float32,
    "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": np.uint16,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16,
    "torch.CharStorage": np.int8,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
}
_REBUILT = ("collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "torch.Size")
_PUSHED = {"BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_DEPTH = 16
_NAME = 1000
# A storage may appear in several tensors (tied weights), so that they can be larger than the file, within reason.
_GROWTH = 16


class _Name(NamedTuple):
    """Something the pickle would import; here only what it is called."""

    text: str


class _Storage(NamedTuple):
    kind: str
    key: str
    elements: int


class _View(NamedTuple):
    """A tensor: places in a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Refused(ValueError):
    """What was expected and what was found, without the path."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}, got {got}")


def read(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Reads the tensors of a file that `torch.save(model.state_dict(), path)` wrote.

    Names of nested dicts and lists are joined with dots; what is not a tensor (an epoch, a learning rate) is left out.

    Args:
        path: The file to read.

    Returns:
        Tensors by name, sorted; see `treadle.load` for their types.

    Raises:
        FileNotFoundError: There is no such file.
        SerializationError: The file is damaged, or holds more than tensors in dicts, lists and tuples.
    """
    size = Path(path).stat().st_size
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            return _tensors(archive, size)
    except _Refused as refused:
        raise SerializationError(f"load: {refused} in {path}") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError, struct.error) as error:
        raise SerializationError(f"load: expected a zip file that PyTorch wrote, got {path} ({error!s:.200})") from None


def _tensors(archive: zipfile.ZipFile, size: int) -> dict[str, Tensor]:
    records, folder = _records(archive, size)
    pickled = archive.read(records[f"{folder}/data.pkl"])
    views = _named(_Machine().run(pickled), len(pickled))
    for name, view in views.items():
        _check(name, view, records.get(f"{folder}/data/{view.storage.key}"))
    total = sum(math.prod(v.shape) * np.dtype(_STORAGES[v.storage.kind]).itemsize for v in views.values())
    if total > _GROWTH * size:
        raise _Refused(f"tensors of at most {_GROWTH} times the {size} bytes of the file", f"{total} bytes")
    order = records.get(f"{folder}/byteorder")
    big = order is not None and archive.read(order) == b"big"
    found: dict[str, Tensor] = {}
    # One storage at a time is in memory beside the tensors.
    by_storage = sorted(views.items(), key=lambda item: item[1].storage.key)
    for key, group in itertools.groupby(by_storage, key=lambda item: item[1].storage.key):
        raw = archive.read(records[f"{folder}/data/{key}"])
        found |= {name: _tensor(raw, view, big) for name, view in group}
    return dict(sorted(found.items()))


def _records(archive: zipfile.ZipFile, size: int) -> tuple[dict[str, zipfile.ZipInfo], str]:
    """The records by name, and the folder they are in."""
    records = {info.filename: info for info in archive.infolist()}
    if len(records) != len(archive.infolist()):
        raise _Refused("every record once", "a name that appears twice")
    for name, info in records.items():
        parts = name.split("/")
        if not parts[0] or ".." in parts or "\\" in name:
            raise _Refused("records within one folder", f"{name!r:.200}")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise _Refused("records that are not compressed", f"the compressed {name!r:.200}")
    claimed = sum(info.file_size for info in records.values())
    if claimed > size:
        raise _Refused(f"records that fit into the {size} bytes of the file", f"{claimed} bytes")
    folders = [name.removesuffix("/data.pkl") for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(folders) != 1:
        raise _Refused("one record data.pkl in a folder", f"{len(folders)}")
    return records, folders[0]


def _named(root: Any, budget: int) -> dict[str, _View]:
    """The tensors of nested dicts and lists by dotted name; `budget` bounds what a pickle that refers to itself can unfold to."""
    if not isinstance(root, dict):
        raise _Refused("a dict of tensors, as state_dict() gives", _kind(root))
    found: dict[str, _View] = {}
    left = iter(range(budget))

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if next(left, None) is None or len(path) > _DEPTH:
            raise _Refused(f"dicts and lists at most {_DEPTH} deep that do not hold themselves", "deeper or endless ones")
        if sum(map(len, path)) > _NAME:
            raise _Refused(f"names of at most {_NAME} characters", f"{'.'.join(path):.50}…")
        if isinstance(value, _View):
            name = ".".join(path)
            if name in found:
                raise _Refused("every name once", f"{name!r:.200} twice")
            found[name] = value
        elif isinstance(value, dict | list | tuple):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                walk(item, (*path, str(key)))

    walk(root, ())
    return found


def _check(name: str, view: _View, record: zipfile.ZipInfo | None) -> None:
    """A tensor lies within its storage, and the storage within its record."""
    kind, key, count = view.storage
    needed = count * np.dtype(_STORAGES[kind]).itemsize
    if record is None or record.file_size != needed:
        got = "none" if record is None else f"{record.file_size} bytes"
        raise _Refused(f"a record data/{key:.20} of {needed} bytes for {name!r:.200}", got)
    # Sizes of 0 count as 1: an array without elements must still have a shape that NumPy can hold.
    if len(view.shape) > 8 or math.prod(max(n, 1) for n in view.shape) >= 2**60:
        raise _Refused(f"a shape of at most 8 sizes that fits in memory for {name!r:.200}", f"{len(view.shape)} sizes")
    reach = view.offset + sum((n - 1) * step for n, step in zip(view.shape, view.strides, strict=True)) + 1
    if 0 not in view.shape and reach > count:
        raise _Refused(f"{name!r:.200} within a storage of {count} elements", f"{reach} elements")


def _tensor(raw: bytes, view: _View, big: bool) -> Tensor:
    flat = np.frombuffer(raw, np.dtype(_STORAGES[view.storage.kind]).newbyteorder("big" if big else "little"))
    if 0 in view.shape:
        array = np.empty(view.shape, flat.dtype)
    else:
        strides = tuple(step * flat.itemsize for step in view.strides)
        array = np.lib.stride_tricks.as_strided(flat[view.offset :], view.shape, strides, writeable=False)
    native = array.astype(flat.dtype.newbyteorder("native"), copy=False)
    return Tensor(from_bfloat16(native) if view.storage.kind == "torch.BFloat16Storage" else native)


def _kind(value: Any) -> str:
    """What to call a value in an error; never its contents, which may be endless."""
    if isinstance(value, _Name):
        return f"{value.text:.200}"
    return "a tensor" if isinstance(value, _View) else type(value).__name__


def _sizes(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(n) is int and n >= 0 for n in value)


class _Machine:
    """Runs a pickle of plain values, tensors and dicts of them; refuses every other opcode and name."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, pickled: bytes) -> Any:
        """The value that the pickle describes."""
        try:
            for opcode, argument, _ in pickletools.genops(pickled):
                if opcode.name == "STOP":
                    return self.stack.pop()
                self.step(opcode.name, argument)
        except _Refused:
            raise
        except (ValueError, LookupError, AttributeError, TypeError, Warning) as error:
            # Where warnings are errors, Python's reader of pickles raises one at an unknown escape in a name.
            raise _Refused("a pickle that can be read", f"{type(error).__name__}: {error!s:.200}") from None
        raise _Refused("a pickle that ends", "one that does not")

    def step(self, name: str, argument: Any) -> None:
        """One opcode."""
        if name in _PUSHED:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in _TUPLES:
            self.stack.append(tuple(self.stack.pop() for _ in range(_TUPLES[name]))[::-1])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "TUPLE":
            self.stack.append(tuple(self.marked()))
        elif name == "GLOBAL":
            self.stack.append(_imported(argument.replace(" ", ".")))
        elif name in _ACTIONS:
            _ACTIONS[name](self)
        elif name not in ("PROTO", "FRAME"):
            raise _Refused("a pickle of plain values and tensors", f"the opcode {name}")

    def marked(self) -> list[Any]:
        """Takes everything above the last mark."""
        start = self.marks.pop()
        if start > len(self.stack):
            raise _Refused("a pickle that can be read", "a mark above the stack")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def name(self) -> None:
        """A name in two parts, as protocol 4 has it."""
        match self.stack.pop(), self.stack.pop():
            case str(own), str(place):
                self.stack.append(_imported(f"{place}.{own}"))
            case own, place:
                raise _Refused("a name in two strings", f"{_kind(place)} and {_kind(own)}")

    def reduce(self) -> None:
        """What calling a known name would give."""
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(_rebuilt(_kind(function), arguments))

    def storage(self) -> None:
        """A reference to elements in another record."""
        match self.stack.pop():
            case ("storage", _Name(kind), str(key), str(), int(count)) if kind in _STORAGES and key.isdecimal() and count >= 0:
                self.stack.append(_Storage(kind, key, count))
            case other:
                raise _Refused("a reference to a storage", _kind(other))

    def build(self) -> None:
        """Drops the attributes of a dict, where PyTorch keeps versions of modules."""
        self.stack.pop()
        if not isinstance(self.stack[-1], dict):
            raise _Refused("attributes of a dict only", f"those of {_kind(self.stack[-1])}")

    def extend(self, values: list[Any]) -> None:
        """Puts values at the end of the list below them."""
        if not isinstance(self.stack[-1], list):
            raise _Refused("a list to append to", _kind(self.stack[-1]))
        self.stack[-1].extend(values)

    def fill(self, values: list[Any]) -> None:
        """Puts keys and values that alternate into the dict below them."""
        if not isinstance(self.stack[-1], dict):
            raise _Refused("a dict to fill", _kind(self.stack[-1]))
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in (str, int):
                raise _Refused("names as strings or whole numbers", _kind(key))
            self.stack[-1][key] = value


_ACTIONS: dict[str, Callable[[_Machine], None]] = {
    "STACK_GLOBAL": _Machine.name,
    "REDUCE": _Machine.reduce,
    "BINPERSID": _Machine.storage,
    "BUILD": _Machine.build,
    "APPEND": lambda machine: machine.extend([machine.stack.pop()]),
    "APPENDS": lambda machine: machine.extend(machine.marked()),
    "SETITEM": lambda machine: machine.fill([machine.stack.pop(), machine.stack.pop()][::-1]),
    "SETITEMS": lambda machine: machine.fill(machine.marked()),
}


def _imported(name: str) -> _Name:
    if name not in _REBUILT and name not in _STORAGES:
        raise _Refused(
            "tensors in dicts, lists and tuples alone, as torch.save(model.state_dict(), path) writes them", f"{name:.200}"
        )
    return _Name(name)


def _rebuilt(function: str, arguments: Any) -> Any:
    """What one of the names of `_REBUILT` stands for."""
    match function, arguments:
        case "collections.OrderedDict", ():
            return {}
        case "torch.Size", (sizes,) if _sizes(sizes):
            return sizes
        case "torch._utils._rebuild_parameter", (_View() as view, *_):
            return view
        case "torch._utils._rebuild_tensor_v2", (_, _, _, _, _, _, metadata, *_) if metadata:
            flags = sorted(map(str, metadata)) if isinstance(metadata, dict) else [_kind(metadata)]
            raise _Refused(
                "tensors that are stored as they are; resolve_neg() and resolve_conj() make such", f"one with {flags!s:.200}"
            )
        case "torch._utils._rebuild_tensor_v2", (_Storage() as storage, int(offset), shape, strides, *_):
            if offset >= 0 and _sizes(shape) and _sizes(strides) and len(shape) == len(strides):
                return _View(storage, offset, shape, strides)
    raise _Refused("arguments as PyTorch writes them", f"others of {function}")
