"""Files that `treadle.data` reads: IDX and MNIST folders, the shipped digits, CSV tables; damaged ones are named errors."""

from __future__ import annotations

import gzip
import json
import struct
import sys
import tomllib
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from treadle import data
from treadle.data import MNIST, Digits, read_csv, read_idx
from treadle.data.table import Schema

Array = npt.NDArray[Any]


def images(*shape: int) -> Array:
    return np.random.default_rng(0).integers(1, 256, shape).astype(np.uint8)


# IDX files --------------------------------------------------------------------

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx(array: Array) -> bytes:
    code = CODES[array.dtype.str[1:]]
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, code, array.ndim]) + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 3)])
def test_idx_files_come_back(tmp_path: Path, dtype: str, zipped: bool, shape: tuple[int, ...]) -> None:
    values = (np.random.default_rng(0).normal(size=shape) * 50).astype("i2").astype(dtype)
    path = tmp_path / "values"
    path.write_bytes(gzip.compress(idx(values)) if zipped else idx(values))
    read = read_idx(path)
    assert read.dtype == {"u1": "uint8", "f4": "float32", "f8": "float64"}.get(dtype, "int64")
    np.testing.assert_array_equal(read.numpy(), values)


GOOD = idx(np.arange(6, dtype=np.uint8).reshape(2, 3))
BAD_IDX = {
    "empty": (b"", "expected an IDX file, got first bytes none"),
    "short": (GOOD[:3], "expected an IDX file, got first bytes 00 00 08"),
    "another magic": (b"\1" + GOOD[1:], "expected an IDX file, got first bytes 01 00 08 02"),
    "an unknown type": (b"\0\0\x0a\1" + GOOD[4:], "got first bytes 00 00 0a 01"),
    "no axes": (b"\0\0\x08\0", "got first bytes 00 00 08 00"),
    "cut in the sizes": (GOOD[:9], "expected 2 sizes, got a file cut short"),
    "cut in the data": (GOOD[:-1], r"expected 6 bytes for shape \(2, 3\), got 5"),
    "bytes after": (GOOD + b"\0", r"expected 6 bytes for shape \(2, 3\), got (more than 6|7)"),
    "a huge claim": (b"\0\0\x0e\2" + b"\x7f\xff\xff\xff\0\x01\0\0" + bytes(9), "expected 1125899906318336 bytes for shape"),
    "a claim beyond memory": (b"\0\0\x0e\4" + b"\xff" * 16, "expected a shape that fits in memory"),
    "a claim beyond memory beside 0": (b"\0\0\x0e\4" + bytes(4) + b"\xff" * 12, "expected a shape that fits in memory"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kind", BAD_IDX)
def test_a_wrong_idx_file_is_a_named_error_and_costs_no_memory(tmp_path: Path, kind: str, zipped: bool) -> None:
    raw, message = BAD_IDX[kind]
    path = tmp_path / "bad-idx"
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"^read_idx: .*{message}.* in .*bad-idx"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_a_damaged_gzip_file_is_a_named_error(tmp_path: Path) -> None:
    whole = gzip.compress(idx(images(50, 20)))
    path = tmp_path / "bad.gz"
    for raw in (whole[:-9], whole[:5], whole[:30] + b"\xff\xff\xff" + whole[33:], whole + b"\1\2\3"):
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=r"^read_idx: expected .* in .*bad\.gz"):
            read_idx(path)
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "none")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_reads_its_four_files(tmp_path: Path, suffix: str) -> None:
    pack = gzip.compress if suffix else bytes
    for part, count in (("train", 6), ("t10k", 3)):
        (tmp_path / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(idx(images(count, 4, 5))))
        (tmp_path / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(np.arange(count, dtype=np.uint8))))
    train, test = MNIST(tmp_path), MNIST(str(tmp_path), train=False)
    assert (len(train), len(test)) == (6, 3)
    assert (train.images.shape, train.images.dtype, train.labels.dtype) == ((6, 4, 5), "uint8", "int64")
    x, y = train[2]
    np.testing.assert_array_equal(x.numpy(), images(6, 4, 5)[2])
    assert y.item() == 2


def test_an_mnist_folder_that_is_not_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^mnist: expected train-images-idx3-ubyte or .*\.gz in .*, got neither$"):
        MNIST(tmp_path)
    with pytest.raises(ValueError, match=r"^mnist: expected train as True or False, got 'test'$"):
        MNIST(tmp_path, "test")  # type: ignore[arg-type]
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images(4, 2, 2)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(images(3)))
    with pytest.raises(ValueError, match=r"^mnist: expected images \(N, H, W\) and labels \(N,\), got \(4, 2, 2\) and \(3,\)"):
        MNIST(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(images(4, 1)))
    with pytest.raises(ValueError, match=r"^mnist: expected images \(N, H, W\) and labels \(N,\), got \(4, 2, 2\) and \(4, 1\)"):
        MNIST(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images(4, 4)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(images(4)))
    with pytest.raises(ValueError, match=r"^mnist: expected images \(N, H, W\) and labels \(N,\), got \(4, 4\) and \(4,\)"):
        MNIST(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images(4, 2, 2)))
    for labels, got in ((np.array([0, 1, -1, 2], np.int8), "-1"), (np.array([0, 1, 1.5, 2], np.float32), "float32")):
        (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels))
        with pytest.raises(ValueError, match=rf"^mnist: expected labels that are whole numbers of at least 0, got {got} in "):
            MNIST(tmp_path)


def test_the_digits_are_all_there() -> None:
    digits = Digits()
    assert len(digits) == 1797
    assert (digits.images.shape, digits.images.dtype) == ((1797, 8, 8), "uint8")
    assert (digits.images.numpy().min(), digits.images.numpy().max()) == (0, 16)
    assert np.bincount(digits.labels.numpy()).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    x, y = digits[0]
    assert (x.shape, x.dtype, y.item()) == ((64,), "float32", 0)
    np.testing.assert_array_equal(x.numpy() * 16, digits.images.numpy()[0].reshape(64))
    folder = Path(data.__file__).parent
    assert (folder / "digits.npz").stat().st_size <= 70_000
    licence = (folder / "LICENSE-digits.md").read_text()
    assert "10.24432/C50P49" in licence
    assert "Creative Commons Attribution 4.0" in licence
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["license"].endswith(" AND CC-BY-4.0")
    assert "python/treadle/data/LICENSE-digits.md" in project["license-files"]


# CSV tables -------------------------------------------------------------------


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_columns_become_features_and_classes(tmp_path: Path) -> None:
    path = written(tmp_path, 'mass,"isle, name",kind\n1.5, b ,x\n-2e3,a,y\n\n0,"c\nd",x\n', "utf-8-sig")
    table = read_csv(path, "kind")
    assert table.features.dtype == np.float64
    assert table.features.tolist() == [[1.5, 0, 1, 0], [-2000, 1, 0, 0], [0, 0, 0, 1]]
    assert table.target is not None
    assert (table.target.tolist(), table.target.dtype) == ([0, 1, 0], np.int64)
    assert table.schema.classes == ["x", "y"]
    assert [(c.name, c.categories, c.width()) for c in table.schema.columns] == [
        ("mass", None, 1),
        ("isle, name", ["a", "b", "c\nd"], 3),
    ]


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"columns": [{"name": 1}]}, "names are strings, got 1"),
        ({"target": None}, "names are strings, got None"),
        ({"classes": "ab"}, "lists of strings, got 'ab'"),
        ({"columns": [{"name": "c", "categories": 5}]}, "lists of strings, got 5"),
        ({"columns": [{"name": "c", "categories": ["a", 5]}]}, r"lists of strings, got \['a', 5\]"),
        ({"columns": 5}, "got another object"),
    ],
)
def test_a_schema_of_another_form_is_refused(change: dict[str, Any], got: str) -> None:
    with pytest.raises(ValueError, match=rf"^read_csv: expected a schema .*{got}"):
        Schema.from_json({"columns": [{"name": "n", "categories": None}], "target": "t", "classes": None} | change)


def test_a_schema_reads_other_files_alike(tmp_path: Path) -> None:
    schema = read_csv(written(tmp_path, "n,c,t\n1,a,5\n2,b,7\n"), "t").schema
    again = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert again == schema
    # Another order, a column more, categories that are not all there, no target.
    table = read_csv(written(tmp_path, "c,more,n\nb,,3\n"), "t", again)
    assert table.features.tolist() == [[3, 0, 1]]
    assert table.target is None
    assert table.schema == schema
    with pytest.raises(TypeError, match=r"^read_csv: expected a Schema, got dict; Schema\.from_json makes one"):
        read_csv(written(tmp_path, "n,c,t\n1,a,5\n"), "t", schema.to_json())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^read_csv: expected the target 't' as in the schema, got 'c'$"):
        read_csv(written(tmp_path, "n,c,t\n1,a,5\n"), "c", schema)
    for text, message in (
        ("n,c\n1,z\n", r"expected one of \['a', 'b'\] in column 'c', got 'z' in line 2 of"),
        ("n,c\n1,a\nx,a\n", "expected numbers in column 'n', got 'x' in line 3 of"),
        ("n,d\n1,2\n", r"expected columns \['n', 'c'\] in .*, got none named \['c'\] in the header \['n', 'd'\]"),
        ("n,c\n1e39,a\n", r"expected numbers of at most 3.403e\+38 in column 'n', got '1e39' in line 2 of"),
        ("n,c,t\n1,a,6\n", r"expected one of \['5', '7'\] in column 't', got '6' in line 2 of"),
    ):
        with pytest.raises(ValueError, match=f"^read_csv: {message}"):
            read_csv(written(tmp_path, text), "t", schema)


def test_classes_that_are_numbers_are_compared_as_numbers(tmp_path: Path) -> None:
    table = read_csv(written(tmp_path, "a,t\n" + "".join(f"1,{v}\n" for v in ("1", "1.0", "0", "-0.0", "2e0"))), "t")
    assert table.schema.classes == ["0", "1", "2"]
    for schema in (table.schema, Schema(table.schema.columns, "t", ["0.0", "1.0", "2.0"])):
        other = read_csv(written(tmp_path, "a,t\n1,1.0\n1,00\n1,2\n"), "t", schema)
        assert other.target is not None
        assert other.target.tolist() == [1, 0, 2]
    with pytest.raises(ValueError, match=r"expected one of \['0', '1', '2'\] in column 't', got 'x' in line 2"):
        read_csv(written(tmp_path, "a,t\n1,x\n"), "t", table.schema)


def test_classes_that_are_numbers_keep_all_their_digits(tmp_path: Path) -> None:
    values = ["9007199254740993", "9007199254740992", "9007199254740993.0", "1e300", "10e299", "1e-0"]
    table = read_csv(written(tmp_path, "a,t\n" + "".join(f"1,{v}\n" for v in values)), "t")
    assert table.schema.classes == ["1", "9007199254740992", "9007199254740993", "1e300"]
    assert table.target is not None
    assert table.target.tolist() == [2, 1, 2, 3, 3, 0]
    for unknown in ("9007199254740994", "1e301", "1e999999999999999999999999", "-1e-99999999999999999999"):
        with pytest.raises(ValueError, match=f"in column 't', got '{unknown}' in line 2"):
            read_csv(written(tmp_path, f"a,t\n1,{unknown}\n"), "t", table.schema)
    exponents = read_csv(written(tmp_path, "a,t\n1,1e9999999999\n1,-1e9999999999\n"), "t")
    assert exponents.schema.classes == ["-1e9999999999", "1e9999999999"]


def test_numbers_are_as_exact_as_the_file_has_them(tmp_path: Path) -> None:
    table = read_csv(written(tmp_path, "time,t\n1700000000.25,0.1\n1700000001.5,1700000000.125\n"), "t")
    assert table.features.tolist() == [[1700000000.25], [1700000001.5]]
    assert table.target is not None
    assert table.target.tolist() == [0.1, 1700000000.125]


def test_a_number_is_read_without_a_call_of_python(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=(300, 12))
    rows = [",".join(map(repr, row)) for row in numbers.tolist()]
    path, calls = written(tmp_path, "\n".join([",".join([*map(str, range(11)), "t"]), *rows])), [0]

    def count(_: Any, event: str, __: Any) -> None:
        calls[0] += event == "call"

    sys.setprofile(count)
    try:
        table = read_csv(path, "t")
    finally:
        sys.setprofile(None)
    assert calls[0] < numbers.size
    np.testing.assert_array_equal(table.features, numbers[:, :11])


def test_whole_numbers_of_features_become_the_nearest_float64(tmp_path: Path) -> None:
    table = read_csv(written(tmp_path, "a,t\n9007199254740993,x\n１２,y\n"), "t")
    assert table.features.tolist() == [[9007199254740992.0], [12.0]]


def test_a_few_numbers_among_words_are_categories(tmp_path: Path) -> None:
    for values in (["0", "1", "2", "3+"] * 10, [str(i) for i in range(30)] + ["old"] * 30):
        table = read_csv(written(tmp_path, "a,t\n" + "".join(f"{v},1\n" for v in values)), "t")
        assert table.schema.columns[0].categories == sorted(set(values))


def test_an_underscore_makes_no_number(tmp_path: Path) -> None:
    table = read_csv(written(tmp_path, "a,t\n1_000,0\n2,1\n"), "t")
    assert table.schema.columns[0].categories == ["1_000", "2"]


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["10", "9", "10"], ["9", "10"]),
        (["no", "yes", "no"], ["no", "yes"]),
        (["0.5", "1", "2"], None),
        ([str(i) for i in range(21)], None),
        (["1", "x", "2"], ["1", "2", "x"]),
    ],
)
def test_what_the_target_is(tmp_path: Path, values: list[str], classes: list[str] | None) -> None:
    table = read_csv(written(tmp_path, "a,t\n" + "".join(f"1,{v}\n" for v in values)), "t")
    assert table.schema.classes == classes
    assert table.target is not None
    if classes is None:
        assert table.target.dtype == np.float64
        assert table.target.tolist() == [float(v) for v in values]
    else:
        assert [classes[i] for i in table.target] == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a header line and rows, got 0 lines"),
        ("a,t\n", "expected a header line and rows, got 1 lines"),
        ("a,t\n\n\n", "expected a header line and rows, got 1 lines"),
        ("a,b\n1,2\n", r"expected a column 't' in .*table.csv, got \['a', 'b'\]$"),
        ("a,a,t\n1,2,3\n", r"expected distinct column names, got \['a', 'a', 't'\]"),
        ("a,t\n1,2\n1\n", "expected 2 cells, got 1 in line 3 of"),
        ('a,t\n"1\n2",2\n\n1,2,3\n', "expected 2 cells, got 3 in line 5 of"),
        ("a,t\n1,2\n\n ,NA\n", "expected no missing values, got 2, the first in line 4, column 'a' of"),
        ("a,t\n1,N/A\n2,#n/a\n3,<NA>\n4,-NaN\n5,nil\n6,#NA\n7,+nan\n", "expected no missing values, got 7, the first in line 2"),
        ("a,t\n1,?\n", "expected no missing values, got 1, the first in line 2, column 't' of"),
        (
            "a,t\n" + "".join(f"id{i},1\n" for i in range(1001)),
            "at most 1000 categories in column 'a', got 1001; .* 'id0' in line 2 of",
        ),
        (
            "a,t\n" + "".join(f"{i},1\n" for i in range(50)) + "oops,1\n",
            "numbers in column 'a', as 50 of 51 are, got 'oops' in line 52",
        ),
        (
            "a,t\n" + "".join(f"1,{i}\n" for i in range(51)) + "1,unknown\n" * 50,
            "numbers in column 't', as 51 of 101 are, got 'unknown' in line 53",
        ),
        ("a,t\n1,x\n1e39,y\n", r"numbers of at most 3.403e\+38 in column 'a', got '1e39' in line 3"),
        ("a,t\n1,1\n2,-inf\n", r"numbers of at most 3.403e\+38 in column 't', got '-inf' in line 3"),
        ('a,t\n1,2\n\n"3,4\n5,6\n', "quotes in pairs, got a row that begins in line 4 of .*unexpected end of data"),
        ('a,t\n"3,4\n5,6\n"7",8\n', "quotes in pairs, got a row that begins in line 2 of "),
        ("a;t\n1,5;2\n", "expected cells separated by commas, got the header 'a;t' in "),
        ("a\tt\n1\t2\n", r"expected cells separated by commas, got the header 'a\\tt' in "),
        ("a|t\n1|2\n", r"expected cells separated by commas, got the header 'a\|t' in "),
    ],
)
def test_a_wrong_table_is_a_named_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^read_csv: .*{message}") as caught:
        read_csv(written(tmp_path, text), "t")
    assert "table.csv" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    for raw, message in (
        (b"a,t\n\xff,1\n", "in UTF-8, got a file that cannot be read"),
        (
            b'a,t\n"' + b"x" * 200_000 + b'",1\n',
            "with cells of at most 131072 characters and quotes in pairs, got a row that begins in line 2",
        ),
    ):
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=rf"^read_csv: expected CSV text {message}.* .*table\.csv"):
            read_csv(path, "t")
    with pytest.raises(FileNotFoundError):
        read_csv(tmp_path / "none.csv", "t")
