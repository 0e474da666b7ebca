"""`treadle.data`: datasets, loaders, splits, transforms, IDX files, the shipped digits, CSV tables."""

from __future__ import annotations

import gzip
import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import treadle
from treadle import Generator, Tensor, data
from treadle.data import (
    MNIST,
    Compose,
    DataLoader,
    Digits,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    Subset,
    TensorDataset,
    collate,
    random_split,
    read_csv,
    read_idx,
)
from treadle.data.table import Schema

Array = npt.NDArray[Any]


class Squares:
    """A dataset of our own: examples are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": np.full(2, index, np.float32), "pair": (index, float(index) ** 2)}

    def __len__(self) -> int:
        return self.count


def numbered(n: int) -> TensorDataset:
    """Row i is (i, 10 + i), its label is i."""
    return TensorDataset(np.arange(n, dtype=np.float32)[:, None] + [0, 10], np.arange(n))


# datasets ---------------------------------------------------------------------


def test_a_tensor_dataset_gives_rows() -> None:
    dataset = numbered(5)
    x, y = dataset[3]
    assert (x.tolist(), y.item(), len(dataset)) == ([3.0, 13.0], 3, 5)
    assert [int(y.item()) for _, y in dataset] == [0, 1, 2, 3, 4]
    with pytest.raises(IndexError):
        dataset[5]


@pytest.mark.parametrize("tensors", [[], [treadle.zeros(2), treadle.zeros(3)], [treadle.tensor(1.0)]])
def test_tensors_of_other_lengths_are_refused(tensors: list[Tensor]) -> None:
    with pytest.raises(ValueError, match=r"^tensor_dataset: expected tensors of equal length, got shapes \["):
        TensorDataset(*tensors)


@pytest.mark.parametrize("indices", [[4, 0, 0], np.array([4, 0, 0], np.uint8), Tensor([4, 0, 0]), iter((4, 0, 0))])
def test_a_subset_keeps_order_and_repeats(indices: Any) -> None:
    subset = Subset(numbered(5), indices)
    assert len(subset) == 3
    assert [int(subset[i][1].item()) for i in range(3)] == [4, 0, 0]
    assert [int(y.item()) for _, y in subset] == [4, 0, 0]


def test_indices_that_are_none_are_refused() -> None:
    for mask in (np.array([True, False]), [True, False], [0.5], [[0], [1]]):
        with pytest.raises(TypeError, match=r"^subset: expected integers in one axis, got"):
            Subset(numbered(2), mask)
    for outside in ([2], [-1]):
        with pytest.raises(IndexError, match=r"^subset: expected indices in \[0, 2\), got"):
            Subset(numbered(2), outside)
    assert len(Subset(numbered(2), [])) == 0


@given(total=st.integers(2, 60), cuts=st.lists(st.floats(0.01, 1), min_size=1, max_size=4), seed=st.integers(0, 2**32))
def test_a_split_is_a_partition(total: int, cuts: list[float], seed: int) -> None:
    shares = [cut / sum(cuts) for cut in cuts]
    parts = random_split(numbered(total), shares, Generator(seed))
    found = [i for part in parts for i in part.indices.tolist()]
    assert sorted(found) == list(range(total))
    assert all(abs(len(part) - share * total) <= 1 for part, share in zip(parts, shares, strict=True))
    again = random_split(numbered(total), [len(part) for part in parts], Generator(seed))
    assert [part.indices.tolist() for part in again] == [part.indices.tolist() for part in parts]


@pytest.mark.parametrize("lengths", [[3, 3], [0.5, 0.6], [6, -1], [2.5, 2.5], []])
def test_lengths_that_do_not_add_up_are_refused(lengths: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^random_split: expected lengths that add up to 5 \(or shares to 1\), got"):
        random_split(numbered(5), lengths)


# loaders ----------------------------------------------------------------------


@given(n=st.integers(0, 23), batch=st.integers(1, 9), drop=st.booleans(), shuffle=st.booleans(), own=st.booleans())
def test_batches_cover_the_dataset_once(n: int, batch: int, drop: bool, shuffle: bool, own: bool) -> None:
    loader = DataLoader(Squares(n) if own else numbered(n), batch, shuffle, drop, Generator(1))
    labels = [(b["pair"][0] if own else b[1]).tolist() for b in loader]
    seen = [i for part in labels for i in part]
    kept = n // batch * batch if drop else n
    assert len(labels) == len(loader)
    assert all(len(part) == batch for part in labels[: n // batch])
    assert len(seen) == kept
    assert len(set(seen)) == kept
    if not shuffle:
        assert seen == list(range(kept))


def test_the_order_is_new_each_time_and_the_seed_decides_it() -> None:
    def orders(seed: int) -> list[list[int]]:
        loader = DataLoader(numbered(50), 50, shuffle=True, generator=Generator(seed))
        return [y.tolist() for _ in range(3) for _, y in loader]

    first = orders(0)
    assert len({tuple(order) for order in first}) == 3
    assert orders(0) == first
    assert orders(1) != first
    treadle.manual_seed(7)
    (default,) = (y.tolist() for _, y in DataLoader(numbered(50), 50, shuffle=True))
    treadle.manual_seed(7)
    assert [y.tolist() for _, y in DataLoader(numbered(50), 50, shuffle=True)] == [default]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool"])
def test_rows_of_every_type_and_shape_are_gathered(dtype: str) -> None:
    whole = np.random.default_rng(0).integers(0, 2, (7, 3, 2)).astype(dtype)
    loader = DataLoader(TensorDataset(whole, whole[:, 0, 0]), 3, shuffle=True, generator=Generator(3))
    order = DataLoader(TensorDataset(np.arange(7)), 3, shuffle=True, generator=Generator(3))
    for (x, y), (at,) in zip(loader, order, strict=True):
        assert x.dtype == dtype
        np.testing.assert_array_equal(x.numpy(), whole[at.numpy()])
        np.testing.assert_array_equal(y.numpy(), whole[at.numpy(), 0, 0])


def test_a_subset_of_a_subset_is_gathered_too() -> None:
    inner = Subset(numbered(10), range(1, 10, 2))
    subset = Subset(inner, [4, 0, 2])
    (batch,) = DataLoader(subset, 3)
    assert batch[1].tolist() == [9, 1, 5]
    assert batch[0].tolist() == [[9, 19], [1, 11], [5, 15]]
    (own,) = DataLoader(Subset(Squares(10), [4, 0]), 2)
    assert own["pair"][0].tolist() == [4, 0]


def test_a_tensor_an_array_and_a_list_are_datasets() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    for dataset in (Tensor(rows), rows, list(rows)):
        assert [batch.tolist() for batch in DataLoader(dataset, 2)] == [[[0, 1], [2, 3]], [[4, 5]]]


def test_a_transform_sees_whole_batches() -> None:
    loader = DataLoader(numbered(3), 2, transform=lambda x, y: (x * 2, y))
    assert [x.tolist() for x, _ in loader] == [[[0, 20], [2, 22]], [[4, 24]]]
    named = DataLoader(Squares(2), 2, transform=lambda batch: batch["x"].shape)
    assert list(named) == [(2, 2)]


def test_examples_are_collated_part_by_part() -> None:
    examples = [{"x": Tensor([1.0, 2.0]), "deep": [i, (True, np.float64(i))], "at": np.array(i)} for i in range(3)]
    batch = collate(examples)
    assert batch["x"].shape == (3, 2)
    assert isinstance(batch["deep"], tuple)
    assert batch["deep"][0].dtype == "int64"
    assert batch["deep"][1][0].dtype == "bool"
    assert batch["deep"][1][1].dtype == "float64"
    assert batch["at"].tolist() == [0, 1, 2]
    assert collate([1.5, 2.5]).dtype == "float32"


@pytest.mark.parametrize(
    ("examples", "error", "message"),
    [
        (["a", "b"], TypeError, "expected tensors, arrays, numbers, tuples or dicts, got str"),
        ([None], TypeError, "got NoneType"),
        ([1, "b"], TypeError, "expected examples of one kind in a batch, got int and str"),
        ([np.zeros(2), 1.0], TypeError, "expected examples of one kind in a batch, got ndarray and float"),
        ([np.zeros(2), np.zeros(3)], ValueError, r"expected examples alike in a batch, got \(\(2,\), 'float64'\) and \(\(3,\)"),
        ([Tensor([1.0]), Tensor([1.0, 2.0])], ValueError, r"expected examples alike in a batch, got \(1,\) and \(2,\)"),
        ([(1, 2), (1,)], ValueError, "expected examples alike in a batch, got 2 and 1"),
        ([{"a": 1}, {"b": 1}], ValueError, r"expected examples alike in a batch, got \['a'\] and \['b'\]"),
    ],
)
def test_examples_that_differ_are_refused(examples: list[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^data_loader: .*{message}"):
        collate(examples)


def test_loaders_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^data_loader: expected batch_size of at least 1, got 0$"):
        DataLoader(numbered(2), 0)
    with pytest.raises(TypeError, match="integer"):
        DataLoader(numbered(2), 1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^data_loader: expected a dataset with __getitem__ and __len__, got int$"):
        DataLoader(3)


# transforms -------------------------------------------------------------------


def images(*shape: int, dtype: str = "uint8") -> Array:
    return np.random.default_rng(0).integers(1, 256, shape).astype(dtype)


@pytest.mark.parametrize("shape", [(40, 5, 6), (40, 3, 5, 6)])
@pytest.mark.parametrize("as_tensor", [True, False])
def test_a_crop_is_a_shift_with_zeros(shape: tuple[int, ...], as_tensor: bool) -> None:
    x = images(*shape)
    cropped = RandomCrop(2, Generator(0))(Tensor(x) if as_tensor else x)
    assert (cropped.shape, cropped.dtype) == (x.shape, "uint8")
    seen = set()
    for before, after in zip(x, cropped.numpy(), strict=True):
        wide = np.pad(before, [(0, 0)] * (before.ndim - 2) + [(2, 2), (2, 2)])
        places = [(i, j) for i in range(5) for j in range(5) if np.array_equal(wide[..., i : i + 5, j : j + 6], after)]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 10
    np.testing.assert_array_equal(RandomCrop(2, Generator(0))(x).numpy(), cropped.numpy())
    np.testing.assert_array_equal(RandomCrop(0)(x).numpy(), x)


@pytest.mark.parametrize("shape", [(200, 4, 5), (200, 2, 4, 5)])
def test_a_flip_mirrors_whole_images(shape: tuple[int, ...]) -> None:
    x = images(*shape, dtype="float32")
    flipped = RandomHorizontalFlip(0.25, Generator(0))(Tensor(x)).numpy()
    mirrored = [np.array_equal(after, before[..., ::-1]) for before, after in zip(x, flipped, strict=True)]
    kept = [np.array_equal(after, before) for before, after in zip(x, flipped, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 25 <= sum(mirrored) <= 75
    np.testing.assert_array_equal(RandomHorizontalFlip(1.0)(x).numpy(), x[..., ::-1])
    np.testing.assert_array_equal(RandomHorizontalFlip(0.0)(x).numpy(), x)


def test_normalising() -> None:
    x = images(4, 3, 2, 2)
    mean, std = [10.0, 20.0, 30.0], [1.0, 2.0, 4.0]
    wanted = (x - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    for given_mean, given_std in ((mean, std), (mean, 2.0), (5.0, std)):
        y = Normalize(given_mean, given_std)(Tensor(x))
        assert (y.shape, y.dtype) == (x.shape, "float32")
    np.testing.assert_allclose(Normalize(mean, std)(x).numpy(), wanted, rtol=1e-6)
    np.testing.assert_allclose(Normalize(100, 50)(x[:, 0]).numpy(), (x[:, 0] - 100.0) / 50, rtol=1e-6)


def test_transforms_follow_one_another() -> None:
    x = images(3, 4, 4)
    both = Compose([RandomHorizontalFlip(1.0), Normalize(0, 2)])
    np.testing.assert_array_equal(both(Tensor(x)).numpy(), x[..., ::-1] / np.float32(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RandomCrop(-1), "random_crop: expected padding of at least 0, got -1"),
        (lambda: RandomHorizontalFlip(1.5), r"random_horizontal_flip: expected p in \[0, 1\], got 1.5"),
        (lambda: Normalize(0, 0), "normalize: expected a finite mean and std above 0, got 0 and 0"),
        (lambda: Normalize(0, [1, float("nan")]), "normalize: expected a finite mean and std above 0"),
        (lambda: Normalize([[0]], 1), r"normalize: expected numbers or one per channel, got \(1, 1\) and \(\)"),
        (lambda: Normalize([0, 0], 1)(images(2, 2, 2)), r"normalize: expected images \(N, 2, H, W\), got \(2, 2, 2\)"),
        (lambda: Normalize([0, 0], 1)(images(2, 3, 2, 2)), r"normalize: expected images \(N, 2, H, W\), got \(2, 3, 2, 2\)"),
        (lambda: RandomCrop(1)(images(2, 2)), r"random_crop: expected images \(N, H, W\) or \(N, C, H, W\), got \(2, 2\)"),
        (lambda: RandomHorizontalFlip()(images(2)), r"random_horizontal_flip: expected images .*, got \(2,\)"),
    ],
)
def test_transforms_refuse_what_they_cannot_do(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_images_in_a_list_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^random_crop: expected a tensor or array of images, got list$"):
        RandomCrop(1)([[[1]]])  # type: ignore[arg-type]


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
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images(4, 2, 2)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(images(3)))
    with pytest.raises(ValueError, match=r"expected tensors of equal length, got shapes \[\(4, 2, 2\), \(3,\)\]"):
        MNIST(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(images(4, 1)))
    with pytest.raises(ValueError, match=r"^mnist: expected images \(N, H, W\) and labels \(N,\), got \(4, 2, 2\) and \(4, 1\)"):
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


# CSV tables -------------------------------------------------------------------


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_columns_become_features_and_classes(tmp_path: Path) -> None:
    path = written(tmp_path, 'mass,"isle, name",kind\n1.5, b ,x\n-2e3,a,y\n\n0,"c\nd",x\n', "utf-8-sig")
    table = read_csv(path, "kind")
    assert table.features.dtype == np.float32
    assert table.features.tolist() == [[1.5, 0, 1, 0], [-2000, 1, 0, 0], [0, 0, 0, 1]]
    assert table.target is not None
    assert (table.target.tolist(), table.target.dtype) == ([0, 1, 0], np.int64)
    assert table.schema.classes == ["x", "y"]
    assert [(c.name, c.categories, c.width()) for c in table.schema.columns] == [
        ("mass", None, 1),
        ("isle, name", ["a", "b", "c\nd"], 3),
    ]


def test_a_schema_reads_other_files_alike(tmp_path: Path) -> None:
    schema = read_csv(written(tmp_path, "n,c,t\n1,a,5\n2,b,7\n"), "t").schema
    again = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert again == schema
    # Another order, a column more, categories that are not all there, no target.
    table = read_csv(written(tmp_path, "c,more,n\nb,,3\n"), "t", again)
    assert table.features.tolist() == [[3, 0, 1]]
    assert table.target is None
    assert table.schema == schema
    for text, message in (
        ("n,c\n1,z\n", r"expected one of \['a', 'b'\] in column 'c', got 'z' in line 2 of"),
        ("n,c\n1,a\nx,a\n", "expected numbers in column 'n', got 'x' in line 3 of"),
        ("n\n1\n", r"expected columns \['n', 'c'\] in .*, got none named \['c'\]"),
        ("n,c,t\n1,a,6\n", r"expected one of \['5', '7'\] in column 't', got '6' in line 2 of"),
    ):
        with pytest.raises(ValueError, match=f"^read_csv: {message}"):
            read_csv(written(tmp_path, text), "t", schema)


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
        assert table.target.dtype == np.float32
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
        ("a,t\n1,?\n", "expected no missing values, got 1, the first in line 2, column 't' of"),
        (
            "a,t\n" + "".join(f"id{i},1\n" for i in range(1001)),
            "at most 1000 categories in column 'a', got 1001; .* 'id0' in line 2 of",
        ),
        ("a,t\n" + "".join(f"{i},1\n" for i in range(1001)) + "1e39,1\n", "the first that is not a number is '1e39' in line 1003"),
    ],
)
def test_a_wrong_table_is_a_named_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^read_csv: .*{message}") as caught:
        read_csv(written(tmp_path, text), "t")
    assert "table.csv" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    for raw in (b"a,t\n\xff,1\n", b'a,t\n"' + b"x" * 200_000 + b'",1\n'):
        path.write_bytes(raw)
        with pytest.raises(
            ValueError, match=r"^read_csv: expected CSV text in UTF-8, got a file that cannot be read, .*table\.csv"
        ):
            read_csv(path, "t")
    with pytest.raises(FileNotFoundError):
        read_csv(tmp_path / "none.csv", "t")
