"""The whole state of a training run in one safetensors file.

Tensors lie in the file under the path that leads to them; everything else is JSON in the file's metadata, where each
tensor leaves its path, beside the name of the run that wrote it, if one did, and a checksum of all. Invariant: what
`load_checkpoint` returns equals what `save_checkpoint` was given, bit for bit; a file with any other bit is refused.
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

__all__ = ["load_checkpoint", "run_of", "save_checkpoint", "write_checkpoint"]

_KIND = "treadle checkpoint 3"


def save_checkpoint(path: str | PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes nested state: the file is replaced as a whole or not at all.

    Args:
        path: The file to write.
        state: Dicts, lists, tuples, numbers, strings, None, Tensors and NumPy arrays, to any depth: `state_dict()`s as
            they are. Dict keys may be strings and ints.

    Raises:
        TypeError: The state is no dict, or holds something else.
        OSError: The file cannot be written.

    Example:
        >>> save_checkpoint("run.safetensors", {"model": model.state_dict(), "epoch": 3})
    """
    write_checkpoint(path, state, "")


def write_checkpoint(path: str | PathLike[str], state: Mapping[str, Any], run: str) -> None:
    """`save_checkpoint` of a run, which has a name of its own; "": of no run."""
    if not isinstance(state, Mapping):
        raise TypeError(f"save_checkpoint: expected a dict of state, got {type(state).__name__}")
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_pack(dict(state), "", tensors))
    save(path, tensors, metadata={"kind": _KIND, "run": run, "state": tree, "sha256": _checksum(run, tree, tensors)})


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
    found = _checksum(metadata.get("run", ""), tree, tensors)
    if found != wanted:
        raise SerializationError(f"load_checkpoint: expected the checksum {wanted}, got {found}: {path} is damaged")
    state = _unpack(json.loads(tree), tensors)
    if not isinstance(state, dict):
        raise SerializationError(f"load_checkpoint: expected a dict of state, got {type(state).__name__} in {path}")
    return state


def run_of(path: str | PathLike[str]) -> str | None:
    """The run that a file says it is a checkpoint of, damaged or not; "": it is none of a run; None: it cannot be read."""
    try:
        metadata = load_metadata(path)
    except (OSError, SerializationError):
        return None
    return metadata.get("run", "") if metadata.get("kind") == _KIND else ""


def _checksum(run: str, tree: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the run, the JSON and every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(f"{run}\n{tree}".encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name].numpy())
        digest.update(f"\n{name}\n{array.dtype.name}{array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON: a dict and a tuple become lists that name themselves, a tensor becomes its path."""
    if isinstance(value, Tensor | np.ndarray):
        while path in tensors or path == "__metadata__":  # 1 and "1" share a path; save takes no such name
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
