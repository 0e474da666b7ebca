"""`treadle.load` of PyTorch's files: every shared layer comes out the same, and no file can do harm.

The files in `fixtures` were written by PyTorch (`fixtures/make_pt.py`); hostile ones are made here.
"""

from __future__ import annotations

import collections
import os
import pickle
import struct
import tempfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import treadle
from treadle import nn
from treadle.serialization import SerializationError

FIXTURES = Path(__file__).parent / "fixtures"

LAYERS: dict[str, nn.Module] = {
    "linear": nn.Linear(5, 3),
    "linear_without_bias": nn.Linear(5, 3, bias=False),
    "batch_norm_1d": nn.BatchNorm1d(3),
    "batch_norm_1d_plain": nn.BatchNorm1d(3, affine=False),
    "batch_norm_2d": nn.BatchNorm2d(3),
    "layer_norm": nn.LayerNorm((3, 4)),
    "layer_norm_without_bias": nn.LayerNorm(4, bias=False),
    "group_norm": nn.GroupNorm(2, 4),
    "instance_norm_1d": nn.InstanceNorm1d(3, affine=True),
    "instance_norm_1d_tracked": nn.InstanceNorm1d(3, track_running_stats=True),
    "rms_norm": nn.RMSNorm(4),
    "embedding": nn.Embedding(6, 3, padding_idx=0),
    "sequential": nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)),
}


def below(tensors: dict[str, treadle.Tensor], prefix: str) -> dict[str, treadle.Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


# files of PyTorch ---------------------------------------------------------------


def test_the_fixture_has_every_layer_of_the_table() -> None:
    assert {name.split(".")[0] for name in treadle.load(FIXTURES / "layers.pt")} == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_pytorch_loads_whole_and_computes_the_same(name: str) -> None:
    given_, layer = below(treadle.load(FIXTURES / "layers.pt"), f"{name}."), LAYERS[name]
    state = below(given_, "state.")
    assert layer.load_state_dict(state) == ([], [])
    assert set(layer.state_dict()) == set(state)
    for key, tensor in layer.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), state[key].numpy(), err_msg=key)
    y = layer.eval()(given_["x"]).detach().numpy()
    np.testing.assert_allclose(y, given_["y"].numpy(), rtol=1e-6, atol=1e-6)


def test_every_element_type_view_and_shared_storage() -> None:
    loaded = treadle.load(FIXTURES / "types.pt")
    assert list(loaded) == sorted(loaded)
    wide = {"float64": "float64", "float32": "float32", "float16": "float32", "bfloat16": "float32"}
    for name in (*wide, "int64", "int32", "int16", "int8"):
        assert loaded[name].dtype == wide.get(name, "int64")
        assert loaded[name].tolist() == [0, 1, 2, 100]
    assert (loaded["uint8"].dtype, loaded["uint8"].tolist()) == (treadle.uint8, [0, 255])
    assert (loaded["bool"].dtype, loaded["bool"].tolist()) == (treadle.bool_, [True, False])
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    views = {"whole": values, "tied": values, "transposed": values.T, "row": values[2], "steps": values[::2, 1::3]}
    views |= {"expanded": np.full((3, 2), 7), "scalar": np.array(1.5), "none": np.zeros((0, 3)), "parameter": np.ones(2)}
    for name, want in views.items():
        assert loaded[name].shape == want.shape
        np.testing.assert_array_equal(loaded[name].numpy(), want, err_msg=name)
    assert "size" not in loaded


def test_a_checkpoint_gives_its_tensors_by_dotted_names() -> None:
    loaded = treadle.load(FIXTURES / "checkpoint.pt")
    assert [name for name in loaded if name.startswith("model.")] == ["model.bias", "model.weight"]
    moments = {f"optimizer.state.{i}.{part}" for i in (0, 1) for part in ("step", "exp_avg", "exp_avg_sq")}
    assert {name for name in loaded if name.startswith("optimizer.")} == moments
    assert len(loaded) == 8
    assert nn.Linear(2, 2).load_state_dict(below(loaded, "model.")) == ([], [])


def test_a_whole_module_and_the_old_format_are_refused() -> None:
    with pytest.raises(SerializationError, match=r"^load: expected tensors in dicts, .* got torch.nn.modules.linear.Linear in "):
        treadle.load(FIXTURES / "whole_module.pt")
    with pytest.raises(SerializationError, match=r"^load: expected a zip file as PyTorch writes since 1.6, got the older format"):
        treadle.load(FIXTURES / "legacy.pt")


# files made by hand ---------------------------------------------------------------


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def sizes(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str = "0", count: int = 2, kind: str = "FloatStorage") -> bytes:
    return b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(
    place: bytes = storage(), offset: int = 0, shape: bytes = sizes(2), strides: bytes = sizes(1), metadata: bytes = b""
) -> bytes:
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return rebuild + place + number(offset) + shape + strides + b"\x89ccollections\nOrderedDict\n)R" + metadata + b"tR"


def named(*items: tuple[str, bytes]) -> bytes:
    """The pickle of a dict."""
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in items) + b"u."


DATA = np.float32([1.5, -2.0]).tobytes()


def write(path: Path, pickled: bytes, records: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("m/data.pkl", pickled)
        for name, data in ({"m/data/0": DATA} if records is None else records).items():
            archive.writestr(name, data)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_file_of_any_protocol_that_pytorch_writes_is_read(tmp_path: Path, protocol: int) -> None:
    torch = pytest.importorskip("torch", reason="the test below has the opcodes of protocol 4 without it")
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    torch.save({"model": model.state_dict(), "tied": model[0].weight, "epoch": 300}, tmp_path / "a.pt", pickle_protocol=protocol)
    loaded = treadle.load(tmp_path / "a.pt")
    assert set(loaded) == {"tied", *(f"model.{name}" for name in model.state_dict())}
    for name, want in model.state_dict().items():
        np.testing.assert_array_equal(loaded[f"model.{name}"].numpy(), want.numpy())


def test_protocol_4_is_read(tmp_path: Path) -> None:
    short = b"\x8c\x05torch\x8c\x0cFloatStorage\x93\x94"  # the name in two strings, memoized
    place = b"(" + text("storage") + short + text("0") + text("cpu") + number(2) + b"tQ"
    frame = named(("x", tensor(place)), ("y", tensor(place.replace(short, b"h\x00"))))[2:]
    write(tmp_path / "a.pt", b"\x80\x04\x95" + struct.pack("<Q", len(frame)) + frame)
    loaded = treadle.load(tmp_path / "a.pt")
    assert [loaded[name].tolist() for name in ("x", "y")] == [[1.5, -2.0]] * 2


class Payload:
    """Unpickled by `pickle`, it would run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_a_file_made_by_hand_is_read(tmp_path: Path) -> None:
    for metadata in (b"", b"}", b"N"):
        write(tmp_path / "a.pt", named(("x", tensor(metadata=metadata))))
        assert treadle.load(tmp_path / "a.pt")["x"].tolist() == [1.5, -2.0]
    big = {"m/data/0": np.array([1.5, -2.0], ">f4").tobytes(), "m/byteorder": b"big"}
    write(tmp_path / "big.pt", named(("x", tensor())), big)
    assert treadle.load(tmp_path / "big.pt")["x"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("protocol", range(6))
def test_a_command_does_not_run_and_is_named(tmp_path: Path, protocol: int) -> None:
    payload = pickle.dumps({"x": Payload(f"touch {tmp_path}/ran")}, protocol)
    write(tmp_path / "a.pt", payload)
    with pytest.raises(SerializationError, match=r"^load: expected .*, got (posix.system|the opcode \w+) in "):
        treadle.load(tmp_path / "a.pt")
    assert os.listdir(tmp_path) == ["a.pt"]
    pickle.loads(payload)
    assert "ran" in os.listdir(tmp_path)


def chain(depth: int) -> bytes:
    """A dict in a dict in a dict …"""
    return b"\x80\x02" + (b"}" + text("d")) * depth + b"}" + b"s" * depth + b"."


def doubled(depth: int) -> bytes:
    """A list whose two elements are one list whose two elements are …: 2**depth leaves."""
    return b"](" * depth + b"]q\x00" + b"".join(b"h%ceq%c" % (i, i + 1) for i in range(depth))


ITSELF = b"}q\x00" + text("d") + b"h\x00s"

BAD_PICKLES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "a pickle that can be read, got ValueError"),
    "no end": (b"\x80\x02}", "a pickle that can be read, got ValueError: pickle exhausted"),
    "an empty stack": (b".", "a pickle that can be read, got IndexError"),
    "no mark": (b"\x80\x02}u.", "a pickle that can be read, got IndexError"),
    "a mark above the stack": (b"\x80\x02}(00u.", "the opcode POP"),
    "an unknown memo": (b"\x80\x02h\x05.", "a pickle that can be read, got KeyError"),
    "an unknown opcode": (b"\x80\x02\xff.", "a pickle that can be read, got ValueError"),
    "a length beyond the end": (b"\x80\x02X\xff\xff\xff\x7fab.", "a pickle that can be read, got ValueError"),
    "a tensor alone": (b"\x80\x02" + tensor() + b".", "a dict of tensors, as state_dict.. gives, got a tensor"),
    "a list": (b"\x80\x02].", "a dict of tensors, as state_dict.. gives, got list"),
    "a name to import": (b"\x80\x02cbuiltins\neval\n.", "got builtins.eval"),
    "a name on the stack": (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "got os.system"),
    "a name of other parts": (b"\x80\x04]\x8c\x06system\x93.", "a name in two strings, got list and str"),
    "nothing to memoize": (b"\x80\x04\x94.", "a pickle that can be read, got IndexError"),
    "a name with spaces": (b"\x80\x02ctorch\nFloatStorage x\n.", "got torch.FloatStorage.x"),
    "an object": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "the opcode NEWOBJ"),
    "an extension": (b"\x80\x02\x82\x01.", "the opcode EXT1"),
    "a storage that is called": (
        b"\x80\x02ctorch\nFloatStorage\n)R.",
        "arguments as PyTorch writes them, got others of torch.FloatStorage",
    ),
    "text that is called": (b"\x80\x02" + text("os.system") + b")R.", "got others of str"),
    "a dict of pairs": (b"\x80\x02ccollections\nOrderedDict\n](\x85R.", "got others of collections.OrderedDict"),
    "a name that is a list": (b"\x80\x02}]Ns.", "names as strings or whole numbers, got list"),
    "an odd number of items": (b"\x80\x02}(" + text("a") + b"u.", "a pickle that can be read, got ValueError"),
    "items of a list": (b"\x80\x02](" + text("a") + b"Nu.", "a dict to fill, got list"),
    "elements of a dict": (b"\x80\x02}Na.", "a list to append to, got dict"),
    "attributes of a tensor": (named(("x", tensor() + b"}b")), "attributes of a dict only, got those of a tensor"),
    "a dict that holds itself": (b"\x80\x02" + ITSELF + b".", "that do not hold themselves"),
    "doubled lists": (named(("x", doubled(15))), "that do not hold themselves"),
    "deep nesting": (chain(100_000), "dicts and lists at most 16 deep"),
    "endless lists": (named(("x", doubled(40))), "dicts and lists at most 16 deep"),
    "a wide product": (named(("x", b"](](" + b"N" * 500 + b"eq\x00" + b"h\x00" * 500 + b"e")), "that do not hold themselves"),
    "a long name": (named(("n" * 2000, tensor())), "names of at most 1000 characters, got nnn"),
    "one name by two paths": (
        named(("a.b", tensor()), ("a", b"}" + text("b") + tensor() + b"s")),
        "every name once, got 'a.b' twice",
    ),
    "no reference": (named(("x", tensor(number(3)))), "arguments as PyTorch writes them"),
    "a reference to a file": (named(("x", tensor(text("/etc/passwd") + b"Q"))), "a reference to a storage, got str"),
    "a key that is a path": (named(("x", tensor(storage("../0")))), "a reference to a storage, got tuple"),
    "an unknown type": (named(("x", tensor(storage(kind="ComplexFloatStorage")))), "got torch.ComplexFloatStorage"),
    "a missing record": (named(("x", tensor(storage("7")))), "a record data/7 of 8 bytes for 'x', got none"),
    "a smaller record": (named(("x", tensor(storage(count=2**40), shape=sizes(2**40)))), f"of {2**42} bytes for 'x', got 8 bytes"),
    "a wider type": (named(("x", tensor(storage(kind="DoubleStorage")))), "of 16 bytes for 'x', got 8 bytes"),
    "a negative count": (named(("x", tensor(storage(count=-2)))), "a reference to a storage, got tuple"),
    "a negative offset": (named(("x", tensor(offset=-1))), "arguments as PyTorch writes them"),
    "an offset beyond": (named(("x", tensor(offset=1))), "'x' within a storage of 2 elements, got 3 elements"),
    "a shape beyond": (named(("x", tensor(shape=sizes(3)))), "'x' within a storage of 2 elements, got 3 elements"),
    "strides beyond": (named(("x", tensor(strides=sizes(2)))), "'x' within a storage of 2 elements, got 3 elements"),
    "strides of another length": (named(("x", tensor(strides=sizes()))), "arguments as PyTorch writes them"),
    "negative strides": (named(("x", tensor(strides=sizes(-1)))), "arguments as PyTorch writes them"),
    "a negative size": (named(("x", tensor(shape=sizes(-1)))), "arguments as PyTorch writes them"),
    "a bit that negates": (
        named(("x", tensor(metadata=b"}" + text("neg") + b"\x88s"))),
        r"stored as they are; .*, got one with \['neg'\]",
    ),
    "another thing as metadata": (named(("x", tensor(metadata=text("neg")))), "stored as they are; .*, got one with .*str"),
    "a true size": (named(("x", tensor(shape=b"\x88\x85"))), "arguments as PyTorch writes them"),
    "nine sizes": (named(("x", tensor(shape=sizes(*[1] * 9), strides=sizes(*[1] * 9)))), "at most 8 sizes"),
    "sizes that overflow": (named(("x", tensor(shape=sizes(2**40, 2**40), strides=sizes(0, 0)))), "fits in memory"),
    "sizes that overflow beside 0": (named(("x", tensor(shape=sizes(0, 2**400), strides=sizes(0, 0)))), "fits in memory"),
    "an expanded element": (named(("x", tensor(shape=sizes(2**40), strides=sizes(0)))), f"of the file, got {2**42} bytes"),
    "one storage many times": (
        named(*((f"x{i}", tensor(shape=sizes(64, 64), strides=sizes(0, 0))) for i in range(9))),
        "of the file, got",
    ),
}


def refused(path: Path, message: str) -> None:
    """The file is a named error, and little memory was taken to find that out."""
    tracemalloc.start()
    with pytest.raises(SerializationError, match=f"^load: expected .*{message}") as caught:
        treadle.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert peak < 4_000_000 + 100 * path.stat().st_size


@pytest.mark.parametrize("kind", BAD_PICKLES)
def test_a_wrong_pickle_is_a_named_error(tmp_path: Path, kind: str) -> None:
    pickled, message = BAD_PICKLES[kind]
    write(tmp_path / "bad.pt", pickled)
    refused(tmp_path / "bad.pt", message)


GOOD = named(("x", tensor()))
BAD_RECORDS: dict[str, tuple[dict[str, bytes], str]] = {
    "an absolute name": ({"/m/data/0": DATA}, "records within one folder, got '/m/data/0'"),
    "a name that climbs": ({"m/../data/0": DATA}, r"records within one folder, got 'm/\.\./data/0'"),
    "a name with backslashes": ({"m\\data\\0": DATA}, "records within one folder"),
    "two folders": ({"m/data/0": DATA, "n/data.pkl": GOOD}, "one record data.pkl in a folder, got 2"),
    "no storage": ({}, "a record data/0 of 8 bytes for 'x', got none"),
    "a longer storage": ({"m/data/0": DATA + b"\0"}, "a record data/0 of 8 bytes for 'x', got 9 bytes"),
}


@pytest.mark.parametrize("kind", BAD_RECORDS)
def test_wrong_records_are_a_named_error(tmp_path: Path, kind: str) -> None:
    records, message = BAD_RECORDS[kind]
    write(tmp_path / "bad.pt", GOOD, records)
    refused(tmp_path / "bad.pt", message)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    write(path, named(("x", tensor(storage(count=2**22), shape=sizes(2**22)))), {"m/data/0": bytes(2**24)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 50_000
    refused(path, "records that are not compressed, got the compressed 'm/data.pkl'")


def test_records_that_overlap_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    write(path, GOOD, {"m/data/0": DATA, "m/data/1": bytes(5000)})
    raw = path.read_bytes()
    # The second entry of the directory is given the place, the length and the checksum of the third.
    first, second, third = (i for i in range(len(raw)) if raw.startswith(b"PK\x01\x02", i))
    assert first < second
    grown = bytearray(raw)
    for begin, end in ((16, 28), (42, 46)):
        grown[second + begin : second + end] = raw[third + begin : third + end]
    path.write_bytes(grown)
    refused(path, r"records that fit into the \d+ bytes of the file, got")


def test_a_name_that_appears_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.pt"
    write(path, GOOD, {"m/data/0": DATA, "m/data/1": DATA})
    path.write_bytes(path.read_bytes().replace(b"m/data/1", b"m/data/0"))
    refused(path, "every record once, got a name that appears twice")


def test_a_changed_byte_of_data_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "changed.pt"
    write(path, GOOD)
    path.write_bytes(path.read_bytes().replace(DATA, DATA[:-1] + b"\x7f"))
    refused(path, r"a zip file that PyTorch wrote, got .* \(Bad CRC-32 for file 'm/data/0'\)")


@pytest.mark.parametrize("keep", [4, 100, -30, -1])
def test_a_file_that_was_cut_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.pt"
    path.write_bytes((FIXTURES / "layers.pt").read_bytes()[:keep])
    refused(path, "a zip file that PyTorch wrote, got")


def test_a_dict_without_tensors_gives_none(tmp_path: Path) -> None:
    write(tmp_path / "a.pt", pickle.dumps(collections.OrderedDict(x=1), 2))
    assert treadle.load(tmp_path / "a.pt") == {}


@given(data=st.data())
def test_a_damaged_byte_gives_an_error_or_tensors(data: st.DataObject) -> None:
    raw = bytearray((FIXTURES / "checkpoint.pt").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(4, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pt"
        path.write_bytes(raw)
        try:
            loaded = treadle.load(path)
        except SerializationError:
            return
        assert sum(t.size for t in loaded.values()) <= 20


@given(data=st.data())
def test_a_damaged_pickle_gives_an_error_or_tensors(data: st.DataObject) -> None:
    with zipfile.ZipFile(FIXTURES / "checkpoint.pt") as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    pickled = bytearray(records.pop("data.pkl"))
    for _ in range(data.draw(st.integers(1, 3))):
        pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pt"
        write(path, bytes(pickled), {f"m/{name}": raw for name, raw in records.items()})
        try:
            loaded = treadle.load(path)
        except SerializationError:
            return
        assert sum(t.size for t in loaded.values()) <= 16 * path.stat().st_size
