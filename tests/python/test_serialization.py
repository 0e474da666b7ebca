"""`treadle.serialization`: what is saved comes back, the same bytes every time, and no file can do harm."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import treadle
from treadle import Tensor, nn
from treadle.serialization import SerializationError, load, load_metadata, save, write_atomic
from treadle.temporary import ASIDE, aside, stand_in, sweep

Array = npt.NDArray[Any]

TENSORS = st.dictionaries(
    st.text(max_size=12).filter(lambda name: name != "__metadata__"),
    st.sampled_from(["float32", "float64", "int64", "uint8", "bool"]).flatmap(
        lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    ),
    max_size=6,
)


def crafted(header: Any, data: bytes = b"") -> bytes:
    """A file with a header of our choice: an object for JSON, or bytes as they are."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: list[Any], begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# what is saved comes back -----------------------------------------------------


@given(named=TENSORS, metadata=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3))
def test_a_round_trip_keeps_every_bit(named: dict[str, Array], metadata: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        save(path, named, metadata)
        loaded = load(path)
        assert load_metadata(path) == metadata
        first = path.read_bytes()
        save(path, dict(reversed(loaded.items())), dict(reversed(metadata.items())))
        assert path.read_bytes() == first
        assert list(loaded) == sorted(named)
        for name, array in named.items():
            assert loaded[name].dtype == array.dtype
            assert loaded[name].shape == array.shape
            assert loaded[name].numpy().tobytes() == array.tobytes()


def test_the_layout_is_that_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, {"b": np.arange(3, dtype=np.uint8), "a": np.float32([[1.5, -2.0]]), "c": np.int64([7])}, {"k": "v"})
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    assert length % 8 == 0
    assert header.pop("__metadata__") == {"k": "v"}
    assert header == {
        "a": entry("F32", [1, 2], 8, 16),
        "b": entry("U8", [3], 16, 19),
        "c": entry("I64", [1], 0, 8),
    }
    assert raw[8 + length :] == struct.pack("<q", 7) + struct.pack("<2f", 1.5, -2.0) + b"\0\1\2"


def test_arrays_that_are_not_contiguous_or_of_another_byte_order(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    save(path, {"t": values.T, "every": values[:, ::2], "big": values.astype(">f4"), "tensor": Tensor(values).T})
    loaded = load(path)
    for name, want in {"t": values.T, "every": values[:, ::2], "big": values, "tensor": values.T}.items():
        np.testing.assert_array_equal(loaded[name].numpy(), want)


def test_a_module_and_its_batch_norm_come_back(tmp_path: Path) -> None:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))

    trained, path = model(), tmp_path / "model.safetensors"
    trained(treadle.randn(8, 3))
    treadle.save(path, trained)
    twin = model()
    twin.load_state_dict(treadle.load(path))
    for (name, a), b in zip(trained.state_dict().items(), twin.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)


@pytest.mark.parametrize("dtype", ["float16", "int32", "int16", "int8"])
def test_narrow_types_are_widened(tmp_path: Path, dtype: str) -> None:
    values = np.array([0, 1, -2, 100], dtype)
    names = {"float16": "F16", "int32": "I32", "int16": "I16", "int8": "I8"}
    path = tmp_path / "a.safetensors"
    path.write_bytes(crafted({"x": entry(names[dtype], [2, 2], 0, values.nbytes)}, values.tobytes()))
    x = load(path)["x"]
    assert x.dtype == ("float32" if dtype == "float16" else "int64")
    np.testing.assert_array_equal(x.numpy(), values.reshape(2, 2))


def test_bfloat16_is_the_upper_half_of_float32(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    bits = np.array([0x3F80, 0xC000, 0x7F80, 0x0001, 0x8000], np.uint16)
    path.write_bytes(crafted({"x": entry("BF16", [5], 0, 10)}, bits.tobytes()))
    x = load(path)["x"].numpy()
    np.testing.assert_array_equal(x, np.float32([1.0, -2.0, np.inf, 2.0**-133, -0.0]))
    assert np.signbit(x[4])


def test_a_bool_is_true_unless_it_is_zero_and_places_need_not_be_aligned(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    header = {"mask": entry("BOOL", [3], 0, 3), "x": entry("F64", [], 3, 11), "none": entry("F32", [0, 9], 3, 3)}
    path.write_bytes(crafted(header, b"\0\1\2" + struct.pack("<d", 0.1)))
    loaded = load(path)
    assert loaded["mask"].tolist() == [False, True, True]
    assert loaded["x"].item() == 0.1
    assert loaded["none"].shape == (0, 9)


# what cannot be saved ---------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "metadata", "message"),
    [
        ({1: np.zeros(1)}, None, "expected names as strings other than '__metadata__', got 1"),
        ({"__metadata__": np.zeros(1)}, None, "got '__metadata__'"),
        ({"x": [1.0]}, None, "expected a Tensor or array of .* for 'x', got list"),
        ({"x": np.zeros(1, np.complex64)}, None, "for 'x', got array of complex64"),
        ({"x": np.zeros(1, np.float16)}, None, "for 'x', got array of float16"),
        ([np.zeros(1)], None, "expected tensors by name or a Module, got list"),
        ({}, {"epoch": 3}, "expected metadata of strings by name"),
    ],
)
def test_what_is_no_tensor_is_refused_and_nothing_is_written(tmp_path: Path, state: Any, metadata: Any, message: str) -> None:
    path = tmp_path / "a.safetensors"
    save(path, {"old": np.ones(1)})
    before = path.read_bytes()
    with pytest.raises(TypeError, match=f"^save: .*{message}"):
        save(path, state, metadata)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_a_name_that_is_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        save(tmp_path / "a", {"\ud800": np.ones(1)})
    assert os.listdir(tmp_path) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_atomic(path, b"new", "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["kept"]
    with pytest.raises(FileNotFoundError) as caught:
        save(tmp_path / "no" / "folder", {})
    assert caught.value.filename == str(tmp_path / "no" / "folder")


def test_a_file_has_the_permissions_of_an_ordinary_one(tmp_path: Path) -> None:
    save(tmp_path / "saved", {})
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "saved").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "private"
    path.touch(0o600)
    save(path, {"x": treadle.ones(2)})
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "link", tmp_path / "there" / "target"
    link.symlink_to(target)
    for value in (1.0, 2.0):  # at first the link leads to nothing
        save(link, {"x": treadle.full((2,), value)})
        assert link.is_symlink()
        assert load(target)["x"].tolist() == [value, value]


@pytest.mark.parametrize("kind", ["metadata", "names", "axes", "an empty axis beyond memory"])
def test_what_could_not_be_loaded_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("treadle.serialization._HEADER_LIMIT", 1000)
    state: dict[str, Any] = {
        "metadata": {},
        "names": {"x" * 1000: treadle.ones(1)},
        "axes": {"x": np.ones([1] * 9)},
        "an empty axis beyond memory": {"x": np.ones((0, 2**30, 2**30), np.uint8)},
    }[kind]
    path = tmp_path / "file"
    save(path, {"x": np.ones([1] * 8)}, {"text": "x" * 800})
    before = path.read_bytes()
    what = r"a shape of at most 8 sizes for 'x', got \(" if "ax" in kind else "a header of at most 1000 bytes, .*, got 1"
    with pytest.raises(ValueError, match=f"save: expected {what}"):
        save(path, state, {"text": "x" * 1000} if kind == "metadata" else None)
    assert path.read_bytes() == before
    assert load(path)["x"].ndim == 8
    assert os.listdir(tmp_path) == ["file"]


KILLED = "import os, sys, treadle; os.fsync = lambda _: os.kill(os.getpid(), 9); treadle.save(sys.argv[1], {'x': treadle.ones(9)})"


def test_what_a_killed_write_left_is_taken_away(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for target in (path, other):
        killed = subprocess.run([sys.executable, "-c", KILLED, str(target)], env=environment, timeout=60, check=False)
        assert killed.returncode == -9
    assert len(list(tmp_path.iterdir())) == 2
    held, handle = stand_in(path)  # as another process that writes it just now
    save(path, {"x": treadle.zeros(2)})
    left = set(tmp_path.iterdir())
    assert left > {path, held}
    assert len(left) == 3  # that of the other file is its own affair
    save(other, {"x": treadle.zeros(2)})
    assert set(tmp_path.iterdir()) == {path, other, held}
    os.close(handle)
    save(path, {"x": treadle.ones(2)})
    assert set(tmp_path.iterdir()) == {path, other}


@pytest.mark.parametrize("opened", [False, True])
def test_a_folder_that_is_taken_away_before_it_is_held_is_made_anew(
    opened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, taken = os.open, []

    def meddling(path: Any, *more: Any, **options: Any) -> int:
        first = not taken and Path(path).name.startswith(ASIDE)
        handle = plain(path, *more, **options) if opened or not first else -1
        if first:  # as another process does
            taken.append(path)
            sweep(tmp_path, ASIDE)
        return handle if handle >= 0 else plain(path, *more, **options)

    monkeypatch.setattr("os.open", meddling)
    with aside(tmp_path) as place:
        assert taken != [str(place)]
        sweep(tmp_path, ASIDE)
        assert list(tmp_path.iterdir()) == [place]
    assert len(taken) == 1
    assert not list(tmp_path.iterdir())


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomic(pipe, b"some", b"thing")
        assert os.read(reader, 100) == b"something"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_a_write_leaves_the_umask_of_the_process_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.umask", lambda _: pytest.fail("another thread would see it"))
    write_atomic(tmp_path / "file", b"new")


# files that are not what they should be ----------------------------------------

GOOD = crafted({"x": entry("F32", [2], 0, 8)}, bytes(8))
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "expected a header within .* of 0 bytes"),
    "cut in the length": (GOOD[:5], "expected a header within .* of 5 bytes"),
    "cut in the header": (GOOD[:30], "expected a header within .* of 30 bytes, got one of"),
    "cut in the data": (GOOD[:-1], "expected 8 bytes of data in .*, got 7"),
    "bytes after": (GOOD + b"\0", "expected 8 bytes of data in .*, got 9"),
    "a huge header": (struct.pack("<Q", 2**63) + b"{}", f"got one of {2**63} bytes"),
    "another format": (b"\x93NUMPY\x01\x00" + bytes(120), "; it is cut short, or neither of safetensors nor of PyTorch$"),
    "no JSON": (crafted(b'{"x": '), "expected a JSON header"),
    "no text": (crafted(b"\xff\xfe{}"), "expected a JSON header"),
    "JSON in UTF-16": (crafted("{}".encode("utf-16")), "expected a JSON header"),
    "deep JSON": (crafted(b'{"x":' + b"[" * 100_000), "expected a JSON header"),
    "a number of many digits": (crafted(b'{"x":' + b"9" * 5000 + b"}"), "expected a JSON header"),
    "a list": (crafted([]), "expected a JSON object as header of .*, got list"),
    "a name twice": (crafted(b'{"x":%(e)s,"x":%(e)s}' % {b"e": b"{}"}), "a name appears twice"),
    "a key twice": (crafted(b'{"x":{"dtype":"F32","dtype":"U8","shape":[],"data_offsets":[0,4]}}', bytes(4)), "appears twice"),
    "metadata of numbers": (crafted({"__metadata__": {"a": 1}}), "expected metadata of strings by name"),
    "metadata in a list": (crafted({"__metadata__": ["a"]}), "expected metadata of strings by name"),
    "no entry": (crafted({"x": 3}), "expected dtype, shape and data_offsets for 'x'"),
    "no shape": (crafted({"x": {"dtype": "F32", "data_offsets": [0, 0]}}), "expected dtype, shape and data_offsets for 'x'"),
    "one key more": (crafted({"x": {**entry("F32", [0], 0, 0), "y": 1}}), "expected dtype, shape and data_offsets for 'x'"),
    "an unknown type": (crafted({"x": entry("F8_E4M3", [4], 0, 4)}, bytes(4)), "expected a dtype among F64, .* got .*F8_E4M3"),
    "a type in a list": (crafted({"x": {**entry("F32", [], 0, 4), "dtype": ["F32"]}}, bytes(4)), "expected a dtype among"),
    "a negative size": (crafted({"x": entry("F32", [-1, -1], 0, 4)}, bytes(4)), "expected a shape"),
    "a size in text": (crafted({"x": entry("F32", ["1"], 0, 4)}, bytes(4)), "expected a shape"),
    "a true size": (crafted({"x": entry("F32", [True], 0, 4)}, bytes(4)), "expected a shape"),
    "nine sizes": (crafted({"x": entry("F32", [1] * 9, 0, 4)}, bytes(4)), "expected a shape of at most 8 sizes"),
    "sizes that overflow": (crafted({"x": entry("F32", [2**32, 2**32], 0, 0)}), "expected a shape"),
    "sizes that overflow beside 0": (crafted({"x": entry("F32", [0, 2**40, 2**40], 0, 0)}), "expected a shape"),
    "more than there is": (crafted({"x": entry("F32", [2**40], 0, 2**42)}), f"expected {2**42} bytes of data"),
    "one offset": (crafted({"x": {**entry("F32", [], 0, 4), "data_offsets": [0]}}, bytes(4)), "expected two offsets"),
    "offsets that run back": (crafted({"x": entry("F32", [1], 4, 0)}, bytes(4)), "expected offsets as far apart"),
    "negative offsets": (crafted({"x": entry("F32", [1], -4, 0)}, bytes(4)), "expected two offsets"),
    "offsets in floats": (crafted({"x": entry("F32", [1], 0.0, 4.0)}, bytes(4)), "expected two offsets"),
    "a shape of another size": (crafted({"x": entry("F32", [3], 0, 8)}, bytes(8)), "expected offsets as far apart"),
    "an overlap": (
        crafted({"x": entry("F32", [2], 0, 8), "y": entry("F32", [2], 4, 12)}, bytes(12)),
        "expected 'y' in .* at byte 8 of the data, got 4",
    ),
    "the same place": (
        crafted({"x": entry("F32", [1], 0, 4), "y": entry("F32", [1], 0, 4)}, bytes(4)),
        "expected 'y' in .* at byte 4 of the data, got 0",
    ),
    "a gap": (
        crafted({"x": entry("F32", [1], 0, 4), "y": entry("F32", [1], 8, 12)}, bytes(12)),
        "expected 'y' in .* at byte 4 of the data, got 8",
    ),
    "a gap at the start": (crafted({"x": entry("U8", [1], 1, 2)}, bytes(2)), "expected 'x' in .* at byte 0 of the data, got 1"),
    "a long name": (crafted({"n" * 10_000: 1}), "expected dtype"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_wrong_file_is_a_named_error(tmp_path: Path, kind: str) -> None:
    raw, message = BAD[kind]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(raw)
    with pytest.raises(SerializationError, match=f"^load: .*{message}") as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("kind", ["cut in the header", "no JSON", "metadata of numbers"])
def test_metadata_of_a_wrong_file_is_a_named_error(tmp_path: Path, kind: str) -> None:
    (tmp_path / "bad").write_bytes(BAD[kind][0])
    with pytest.raises(SerializationError, match=f"^load: .*{BAD[kind][1]}"):
        load_metadata(tmp_path / "bad")


def test_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    for read in (load, load_metadata):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none")


@given(data=st.data())
def test_a_damaged_byte_gives_an_error_or_tensors(data: st.DataObject) -> None:
    raw = bytearray(crafted({"x": entry("F32", [2, 3], 0, 24), "y": entry("I64", [1], 24, 32)}, bytes(range(32))))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(raw)
        try:
            loaded = load(path)
        except SerializationError:
            return
        assert sum(t.size for t in loaded.values()) <= 32
