"""The whole state of a training run in one safetensors file.

Tensors lie in the file under the path that leads to them; everything else is JSON in the file's metadata, where each
tensor leaves its path, beside a checksum of both. Invariant: what `load_checkpoint` returns equals what `save_checkpoint`
was given, bit for bit; a file with any other bit is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np

from treadle._core import Tensor
from treadle.serialization import SerializationError, load, load_metadata, save

__all__ = ["is_checkpoint", "load_checkpoint", "save_checkpoint"]

_KINDS = "treadle checkpoint"
_KIND = f"{_KINDS} 2"


def save_checkpoint(path: str | PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes nested state: the file is replaced as a whole or not at all.

    Args:
        path: The file to write.
        state: Dicts, lists, tuples, numbers, strings, None, Tensors and NumPy arrays, to any depth: `state_dict()`s as
            they are. Dict keys may be strings and ints.

    Raises:
        TypeError: The state holds something else.
        OSError: The file cannot be written.

    Example:
        >>> save_checkpoint("run.safetensors", {"model": model.state_dict(), "epoch": 3})
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_pack(dict(state), "", tensors))
    save(path, tensors, metadata={"kind": _KIND, "state": tree, "sha256": _checksum(tree, tensors)})


def load_checkpoint(path: str | PathLike[str]) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote.

    Args:
        path: The file to read.

    Returns:
        The state: dicts, lists and tuples as they were, arrays as Tensors.

    Raises:
        FileNotFoundError: There is no such file.
        SerializationError: The file is damaged, down to a single bit, or is not a checkpoint. It is a ValueError.

    Example:
        >>> model.load_state_dict(load_checkpoint("run.safetensors")["model"])
    """
    metadata = load_metadata(path)
    if metadata.get("kind") != _KIND:
        raise SerializationError(f"load_checkpoint: expected a file of kind {_KIND!r}, got {metadata.get('kind')!r} in {path}")
    tensors = load(path)
    tree, wanted = metadata.get("state", ""), metadata.get("sha256")
    found = _checksum(tree, tensors)
    if found != wanted:
        raise SerializationError(f"load_checkpoint: expected the checksum {wanted}, got {found}: {path} is damaged")
    state = _unpack(json.loads(tree), tensors)
    if not isinstance(state, dict):
        raise SerializationError(f"load_checkpoint: expected a dict of state, got {type(state).__name__} in {path}")
    return state


def is_checkpoint(path: str | PathLike[str], section: str) -> bool | None:
    """Whether a file says that it is a checkpoint with a dict of this name in its state; None where nothing can be read.

    It may be damaged all the same.
    """
    try:
        metadata = load_metadata(path)
    except (OSError, SerializationError):
        return None
    return metadata.get("kind", "").startswith(_KINDS) and f'["{section}", {{"dict": ' in metadata.get("state", "")


def _checksum(tree: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the JSON and over every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(tree.encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name].numpy())
        digest.update(f"\n{name}\n{array.dtype.name}{array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON: a dict and a tuple become lists that name themselves, a tensor becomes its path."""
    if isinstance(value, Tensor | np.ndarray):
        while path in tensors:  # as the keys 1 and "1" would have it
            path += "'"
        tensors[path] = value if isinstance(value, Tensor) else Tensor(value)
        return {"tensor": path}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str | int) or isinstance(key, bool):
                raise TypeError(f"save_checkpoint: expected str or int keys, got {type(key).__name__} in {path or 'state'}")
        return {"dict": [[key, _pack(entry, _join(path, key), tensors)] for key, entry in value.items()]}
    if isinstance(value, list | tuple):
        entries = [_pack(entry, _join(path, index), tensors) for index, entry in enumerate(value)]
        return {"tuple": entries} if isinstance(value, tuple) else entries
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"save_checkpoint: expected numbers, strings, containers and Tensors, got {type(value).__name__} in {path}")


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_unpack(entry, tensors) for entry in content)
    return {key: _unpack(entry, tensors) for key, entry in content}


def _join(path: str, key: str | int) -> str:
    return f"{path}/{key}" if path else str(key)
