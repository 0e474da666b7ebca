"""`treadle.data`: datasets, splits and loaders."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import treadle
from treadle import Generator, Tensor
from treadle.data import (
    DataLoader,
    Dataset,
    Subset,
    TensorDataset,
    collate,
    random_split,
)


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
    for mask in (np.array([True, False]), [True, False], [0.5], [[0], [1]], None, slice(2)):
        with pytest.raises(TypeError, match=r"^subset: expected integers in one axis, got"):
            Subset(numbered(2), mask)
    for outside in ([2], [-1]):
        with pytest.raises(IndexError, match=r"^subset: expected indices in \[0, 2\), got"):
            Subset(numbered(2), outside)
    assert len(Subset(numbered(2), [])) == 0


def test_a_slice_of_a_subset_is_a_batch() -> None:
    whole = TensorDataset(treadle.arange(10), treadle.arange(10) * 2)
    inner = Subset(whole, range(1, 10, 2))
    for subset, want in ((inner, [3, 5]), (Subset(inner, [4, 2, 1]), [5, 3])):
        x, y = subset[1:3]
        assert (x.tolist(), y.tolist()) == (want, [2 * n for n in want])
    assert Subset(["a", "b", "c"], [2, 0])[:] == ["c", "a"]


@given(total=st.integers(1, 60), cuts=st.lists(st.floats(0.01, 1), min_size=1, max_size=4), seed=st.integers(0, 2**32))
def test_a_split_is_a_partition(total: int, cuts: list[float], seed: int) -> None:
    shares = [cut / sum(cuts) for cut in cuts]
    parts = random_split(numbered(total), shares, Generator(seed))
    found = [i for part in parts for i in part.indices.tolist()]
    assert sorted(found) == list(range(total))
    assert all(abs(len(part) - share * total) <= 1 for part, share in zip(parts, shares, strict=True))
    for again in ([len(part) for part in parts], iter(shares)):
        twin = random_split(numbered(total), again, Generator(seed))
        assert [part.indices.tolist() for part in twin] == [part.indices.tolist() for part in parts]


@pytest.mark.parametrize("total", [100, 30_000])
def test_a_share_of_whole_examples_is_that_many(total: int) -> None:
    for percent in range(101):
        sizes = [total * percent // 100, total * (100 - percent) // 100]
        assert list(map(len, random_split(range(total), [percent / 100, (100 - percent) / 100]))) == sizes
    assert list(map(len, random_split(range(total + 1), [0.29, 0.71]))) == [total * 29 // 100 + 1, total * 71 // 100]


@pytest.mark.parametrize("lengths", [[3, 3], [0.5, 0.6], [6, -1], [2.5, 2.5], []])
def test_lengths_that_do_not_add_up_are_refused(lengths: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^random_split: expected lengths that add up to 5 \(or shares to 1\), got"):
        random_split(numbered(5), lengths)


def test_one_share_is_no_list_of_them() -> None:
    with pytest.raises(TypeError, match=r"^random_split: expected a list of lengths or shares, got float$"):
        random_split(numbered(5), 0.8)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^random_split: expected a length as a number, got str$"):
        random_split(numbered(5), [4, "a"])  # type: ignore[list-item]


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


class Shifted(TensorDataset):
    """Examples of its own, over batches that it inherits."""

    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        return x + 100, y


class Backwards(Subset):
    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(len(self) - 1 - index)


class Gathering(Shifted):
    def gather(self, index: Tensor) -> Any:
        x, y = super().gather(index)
        return x + 200, y


class Wrapped:
    """Another dataset's attributes, but examples of its own."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index][1]

    def __len__(self) -> int:
        return len(self.dataset)


def test_batches_are_of_the_examples_that_a_subclass_gives() -> None:
    shifted = Shifted(treadle.arange(4), treadle.arange(4))
    gathering = Gathering(*shifted.tensors)
    for dataset, want in (
        (shifted, [100, 101, 102, 103]),
        (Subset(shifted, [3, 0]), [103, 100]),
        (Backwards(shifted, [3, 0, 1]), [101, 100, 103]),
        (Subset(Backwards(numbered(4), [3, 0, 1]), [0, 2]), [[1, 11], [3, 13]]),
        (gathering, [200, 201, 202, 203]),
        (Subset(gathering, [2]), [202]),
    ):
        ((x, _),) = DataLoader(dataset, 4)
        assert x.tolist() == want
    assert next(iter(DataLoader(Wrapped(shifted), 4))).tolist() == [0, 1, 2, 3]


def test_a_tensor_an_array_and_a_list_are_datasets() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    for dataset in (Tensor(rows), rows, list(rows)):
        assert [batch.tolist() for batch in DataLoader(dataset, 2)] == [[[0, 1], [2, 3]], [[4, 5]]]
    (batch,) = DataLoader(pl.Series([1.0, 2.0]), 2)
    assert isinstance(batch, Tensor)
    assert batch.tolist() == [1.0, 2.0]


def test_a_transform_sees_whole_batches() -> None:
    loader = DataLoader(numbered(3), 2, transform=lambda x, y: (x * 2, y))
    assert [x.tolist() for x, _ in loader] == [[[0, 20], [2, 22]], [[4, 24]]]
    named = DataLoader(Squares(2), 2, transform=lambda batch: batch["x"].shape)
    assert list(named) == [(2, 2)]


class Point(NamedTuple):
    at: int
    value: float


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
    assert collate([{1: 2, "a": 3}, {"a": 4, 1: 5}])["a"].tolist() == [3, 4]  # keys without an order among them
    point = collate([Point(1, 2.0), Point(3, 4.0)])
    assert (type(point), point.at.tolist()) == (Point, [1, 3])
    with pytest.raises(ValueError, match=r"^collate: expected at least one example, got none$"):
        collate([])


@pytest.mark.parametrize(
    ("examples", "error", "message"),
    [
        (["a", "b"], TypeError, "expected treadle tensors, arrays, numbers, tuples or dicts, got str"),
        ([None], TypeError, "got NoneType"),
        ([1, "b"], TypeError, "expected examples of one kind in a batch, got int and str"),
        ([np.zeros(2), 1.0], TypeError, "expected examples of one kind in a batch, got ndarray and float"),
        ([np.zeros(2), np.zeros(3)], ValueError, r"expected examples alike in a batch, got \(2,\) float64 and \(3,\)"),
        (
            [Tensor([1.0]), Tensor([1.0, 2.0])],
            ValueError,
            r"expected examples alike in a batch, got \(1,\) float32 and \(2,\)",
        ),
        ([treadle.ones(1), treadle.arange(1)], ValueError, r"got \(1,\) float32 and \(1,\) int64"),
        ([(1, 2), (1,)], ValueError, "expected examples alike in a batch, got 2 and 1"),
        ([{"a": 1}, {"b": 1}], ValueError, r"expected examples alike in a batch, got \['a'\] and \['b'\]"),
    ],
)
def test_examples_that_differ_are_refused(examples: list[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^data_loader: .*{message}"):
        collate(examples)


@pytest.mark.parametrize("lacking", ["__len__", "__getitem__"])
def test_a_dataset_that_lacks_a_method_is_named(lacking: str) -> None:
    methods: dict[str, Any] = {"__len__": lambda self: 2, "__getitem__": lambda self, index: index}
    del methods[lacking]
    with pytest.raises(TypeError, match=f"^dataset: expected Partial to define {lacking}, got a class without it$"):
        next(iter(DataLoader(type("Partial", (Dataset,), methods)())))


def test_loaders_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^data_loader: expected batch_size of at least 1, got 0$"):
        DataLoader(numbered(2), 0)
    with pytest.raises(TypeError, match=r"^data_loader: expected batch_size as an int, got float$"):
        DataLoader(numbered(2), 32.0)  # type: ignore[arg-type]
    shuffled = pd.Series([1, 2], index=[1, 0])  # [0] is what has the label 0, and stands second
    for table, got in ((pd.DataFrame({"a": [1, 2]}), "a table, DataFrame"), (shuffled, "a column, Series")):
        for op, made in (("data_loader", DataLoader), ("subset", lambda table: Subset(table, [0]))):
            with pytest.raises(TypeError, match=f"^{op}: expected a dataset of examples by number, got {got}; make a Ten"):
                made(table)
    for flag in ("shuffle", "drop_last"):  # where other loaders have a sampler, or this one a generator
        with pytest.raises(
            ValueError, match=rf"^data_loader: expected {flag} as True or False, got Generator\(seed=1, counter=0\)$"
        ):
            DataLoader(numbered(2), 2, **{flag: Generator(1)})
    with pytest.raises(TypeError, match=r"^data_loader: expected a dataset with __getitem__ and __len__, got int$"):
        DataLoader(3)
