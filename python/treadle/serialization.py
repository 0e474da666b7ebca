"""Saving tensors in the safetensors format, and loading them from it or from a file of PyTorch.

A file is 8 bytes of header length, a JSON header that names every tensor's type, shape and place, and the tensors' bytes.
Invariants: a file is replaced as a whole or not at all; the same tensors give the same bytes; nothing in a file is believed
before it was checked against the file's size.
Source: the safetensors format, https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle._core import Tensor
from treadle.temporary import stand_in

__all__ = ["SerializationError", "from_bfloat16", "load", "load_metadata", "naming", "save", "write_atomic"]

Array = npt.NDArray[Any]

_HEADER_LIMIT = 100_000_000
_ZIP = b"PK\x03\x04"
# A pickle of PyTorch's magic number; as the length of a header it is beyond every limit.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF"
_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_WRITTEN = {"float64": "F64", "float32": "F32", "int64": "I64", "uint8": "U8", "bool": "BOOL"}


class SerializationError(ValueError):
    """A file that is not what it should be."""


@contextmanager
def naming(path: str | PathLike[str]) -> Iterator[None]:
    """Inside, an error of the system names this path, whichever file stands in for it until it is whole."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def write_atomic(path: str | PathLike[str], *parts: bytes | memoryview) -> None:
    """Writes a file that appears under its name only when it is whole and on disk.

    A file that is there keeps its permissions, and a link still leads to it. What is there and no file, such as a device or a
    pipe, is written to as it is.
    """
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        with open(path, "wb") as stream:
            stream.writelines(parts)
        return
    place = Path(os.path.realpath(path))
    with naming(path):
        temporary, handle = stand_in(place)
        try:
            with os.fdopen(handle, "wb") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), stat.S_IMODE(mode))
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, place)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def _mode(path: str | PathLike[str]) -> int | None:
    """Kind and permissions of what is at a path, links followed; None: there is nothing."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def save(path: str | PathLike[str], state: Any, metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors to a safetensors file, atomically; links are followed, and a file that is there keeps its permissions.

    Args:
        path: The file to write.
        state: Tensors or NumPy arrays by name, or a Module (its state_dict is saved).
        metadata: Strings by name, kept in the header.

    Raises:
        TypeError: Something that is not a tensor, or a name or metadata that is not a string.
        ValueError: A name or metadata that cannot be written as UTF-8, more of them than a header may have, or an array of
            more than 8 axes.
        OSError: The file cannot be written.

    Example:
        >>> treadle.save("model.safetensors", model)
    """
    named = state.state_dict() if hasattr(state, "state_dict") else state
    if not isinstance(named, Mapping):
        raise TypeError(f"save: expected tensors by name or a Module, got {type(state).__name__}")
    arrays = {_checked_name(name): _array(name, value) for name, value in named.items()}
    header: dict[str, Any] = {}
    if metadata:
        if not all(isinstance(k, str) and isinstance(v, str) for k, v in metadata.items()):
            raise TypeError("save: expected metadata of strings by name, got other values")
        header["__metadata__"] = dict(sorted(metadata.items()))
    offset = 0
    # Wide types first, so that every tensor is aligned.
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    for name in order:
        array = arrays[name]
        end = offset + array.nbytes
        header[name] = {"dtype": _WRITTEN[array.dtype.name], "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _HEADER_LIMIT:
        got = f"{len(text)}; keep numbers in tensors rather than in lists"
        raise ValueError(f"save: expected a header of at most {_HEADER_LIMIT} bytes, which names and metadata are in, got {got}")
    data = [np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data for name in order]
    write_atomic(path, len(text).to_bytes(8, "little"), text, *data)


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or name == "__metadata__":
        raise TypeError(f"save: expected names as strings other than '__metadata__', got {name!r}")
    return name


def _array(name: str, value: Any) -> Array:
    if isinstance(value, Tensor):
        return value.numpy()
    if isinstance(value, np.ndarray) and not _fits(value.shape):
        raise ValueError(f"save: expected a shape of at most 8 sizes for {name!r}, got {value.shape}")
    if isinstance(value, np.ndarray) and value.dtype.name in _WRITTEN:
        return value.astype(value.dtype.newbyteorder("="), copy=False)
    kind = f"array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    hint = "; save_checkpoint of treadle.training takes nested state" if isinstance(value, dict | list | int | float | str) else ""
    raise TypeError(f"save: expected a Tensor or array of {', '.join(_WRITTEN)} for {name!r}, got {kind}{hint}")


def load(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors file, or of a state_dict that `torch.save` wrote; its first bytes say which it is.

    float16 and bfloat16 become float32; int8, int16 and int32 become int64. In a file of PyTorch names of nested dicts are
    joined with dots, and what is not a tensor is left out; PyTorch is not needed, and no code in the file runs.

    Args:
        path: The file to read.

    Returns:
        Tensors by name, sorted.

    Raises:
        FileNotFoundError: There is no such file.
        SerializationError: The file is damaged, or holds other things than tensors; nothing it claims is allocated before its
            size was checked.

    Example:
        >>> model.load_state_dict(treadle.load("model.safetensors"))
        >>> model.load_state_dict(treadle.load("model.pt"))
    """
    with open(path, "rb") as file:
        first = file.read(8)
    if first.startswith(_ZIP):
        from treadle import torch_file

        return torch_file.read(path)
    if first == _OLD_TORCH:
        raise SerializationError(f"load: expected a zip file as PyTorch writes since 1.6, got the older format in {path}")
    header, _, start = _header(path)
    data = np.fromfile(path, np.uint8, offset=start)
    entries = {name: _entry(path, name, entry) for name, entry in header.items()}
    _check_places(path, entries, data.size)
    return {name: _tensor(data, *entries[name]) for name in sorted(entries)}


def load_metadata(path: str | PathLike[str]) -> dict[str, str]:
    """The metadata of a safetensors file.

    Args:
        path: The file to read; only its header is.

    Returns:
        Strings by name.

    Raises:
        FileNotFoundError: There is no such file.
        SerializationError: The header is damaged.

    Example:
        >>> treadle.serialization.load_metadata("model.safetensors")["epoch"]
    """
    return _header(path)[1]


def _header(path: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, str], int]:
    """The entries of the tensors, the metadata, and where the data begins."""
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _HEADER_LIMIT):
            how = "it is cut short, or neither of safetensors nor of PyTorch"
            raise SerializationError(f"load: expected a header within {path} of {size} bytes, got one of {length} bytes; {how}")
        text = file.read(length)
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise SerializationError(f"load: expected a JSON header in {path}, got one that cannot be read ({error})") from None
    if not isinstance(header, dict):
        raise SerializationError(f"load: expected a JSON object as header of {path}, got {type(header).__name__}")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise SerializationError(f"load: expected metadata of strings by name in {path}, got {metadata!r:.200}")
    return header, metadata, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found


def _fits(shape: Sequence[int]) -> bool:
    return len(shape) <= 8 and math.prod(max(n, 1) for n in shape) < 2**60


Entry = tuple[str, tuple[int, ...], int, int]


def _entry(path: str | PathLike[str], name: str, entry: Any) -> Entry:
    """Type, shape, begin and end of one tensor, checked against each other."""

    def refuse(what: str) -> SerializationError:
        return SerializationError(f"load: expected {what} for {name!r:.200} in {path}, got {entry!r:.200}")

    def whole(value: Any, count: int | None = None) -> bool:
        sound = isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)
        return sound and (count is None or len(value) == count)

    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise refuse("dtype, shape and data_offsets")
    if entry["dtype"] not in tuple(_DTYPES):
        raise refuse(f"a dtype among {', '.join(_DTYPES)}")
    if not whole(entry["shape"]) or not _fits(entry["shape"]):
        raise refuse("a shape of at most 8 sizes that fits in memory")
    if not whole(entry["data_offsets"], 2):
        raise refuse("two offsets")
    begin, end = entry["data_offsets"]
    if end - begin != math.prod(entry["shape"]) * np.dtype(_DTYPES[entry["dtype"]]).itemsize:
        raise refuse("offsets as far apart as the shape needs")
    return entry["dtype"], tuple(entry["shape"]), begin, end


def _check_places(path: str | PathLike[str], entries: Mapping[str, Entry], size: int) -> None:
    """Tensors must fill the data without gaps, overlaps or remainder."""
    reached = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != reached:
            raise SerializationError(f"load: expected {name!r:.200} in {path} at byte {reached} of the data, got {begin}")
        reached = end
    if reached != size:
        raise SerializationError(f"load: expected {reached} bytes of data in {path}, got {size}")


def from_bfloat16(bits: Array) -> Array:
    """bfloat16, given as uint16, as float32: it is the upper half."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _tensor(data: Array, dtype: str, shape: tuple[int, ...], begin: int, end: int) -> Tensor:
    flat = data[begin:end].view(np.dtype(_DTYPES[dtype]).newbyteorder("<"))
    if dtype == "BF16":
        flat = from_bfloat16(flat)
    if dtype == "BOOL":
        flat = data[begin:end] != 0
    return Tensor(flat).reshape(shape)
