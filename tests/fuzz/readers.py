"""What the fuzzer and its corpus ask of a reader: any bytes give tensors that hold together, or the one error it documents."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import treadle
from treadle.data import read_idx
from treadle.data.table import Schema, read_csv
from treadle.serialization import SerializationError, load_metadata

CORPUS = Path(__file__).with_name("corpus")
_HANDLE = os.memfd_create("input")
_PATH = f"/proc/self/fd/{_HANDLE}"


def _file(data: bytes) -> str:
    """The path of a file in memory that holds the data."""
    os.ftruncate(_HANDLE, 0)
    os.pwrite(_HANDLE, data, 0)
    return _PATH


def _check_loaded(path: str, size: int) -> None:
    for name, tensor in treadle.load(path).items():
        assert isinstance(name, str)
        # An int8 in the file becomes an int64.
        assert tensor.numpy().nbytes <= 8 * size


def safetensors(data: bytes) -> None:
    """The bytes as they are, or those before the first 0xff as a header whose length is right."""
    header, cut, body = data.partition(b"\xff")
    data = len(header).to_bytes(8, "little") + header + body if cut else data
    path = _file(data)
    try:
        load_metadata(path)
        _check_loaded(path, len(data))
    except SerializationError:
        return


def _zipped(members: dict[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return whole.getvalue()


def torch(data: bytes) -> None:
    """The bytes as a zip file, or as the pickle in one that is sound."""
    if not data.startswith(b"PK"):
        data = _zipped({"a/data.pkl": data, "a/byteorder": b"little", "a/data/0": bytes(range(64))})
    try:
        # Storages are shared: several tensors may read the same bytes.
        treadle.load(_file(data))
    except SerializationError:
        return


def idx(data: bytes) -> None:
    """The bytes as they are, gzip or not; those behind a first 0x01 are compressed here."""
    data = gzip.compress(data[1:], 1) if data[:1] == b"\1" else data
    try:
        tensor = read_idx(_file(data))
    except ValueError:
        return
    assert 1 <= tensor.ndim <= 8


def csv(data: bytes) -> None:
    """The bytes as a table with the target y; what was inferred reads the same file alike."""
    path = _file(data)
    try:
        table = read_csv(path, "y")
    except ValueError:
        return
    assert np.isfinite(table.features).all()
    assert table.target is not None
    again = read_csv(path, "y", Schema.from_json(table.schema.to_json()))
    assert again.features.tobytes() == table.features.tobytes()
    assert again.target is not None
    assert again.target.tobytes() == table.target.tobytes()


READERS: dict[str, Callable[[bytes], None]] = {"safetensors": safetensors, "torch": torch, "idx": idx, "csv": csv}
