"""Datasets: anything with `__getitem__` and `__len__`; the ones here keep their data in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np

from treadle import _core
from treadle._core import Generator, Tensor
from treadle.checks import number

__all__ = ["Dataset", "Subset", "TensorDataset", "expect_examples", "gatherer", "random_split"]


class Dataset(Protocol):
    """What a `DataLoader` needs: examples by number."""

    def __getitem__(self, index: int) -> Any:
        """Example number `index`: a tensor, array or number, or a tuple or dict of them."""
        raise TypeError(f"dataset: expected {type(self).__name__} to define __getitem__, got a class without it")

    def __len__(self) -> int:
        """How many examples there are."""
        raise TypeError(f"dataset: expected {type(self).__name__} to define __len__, got a class without it")


class TensorDataset:
    """Tensors whose first axes run over the examples.

    Args:
        *tensors: Tensors or NumPy arrays of equal length.

    Raises:
        ValueError: No tensors, a scalar, or lengths that differ.

    Shape:
        Each (N, …); examples are tuples of tensors (…).

    Example:
        >>> TensorDataset(treadle.randn(100, 8), treadle.zeros(100))[3]
    """

    def __init__(self, *tensors: Any) -> None:
        self.tensors = tuple(t if isinstance(t, Tensor) else Tensor(t) for t in tensors)
        shapes = [t.shape for t in self.tensors]
        if not shapes or any(not s for s in shapes) or len({s[0] for s in shapes}) != 1:
            raise ValueError(f"tensor_dataset: expected tensors of equal length, got shapes {shapes}")

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    def gather(self, index: Tensor) -> tuple[Tensor, ...]:
        """The examples at `index` (int64), as one tensor each."""
        return tuple([_core.gather_rows(t, index) for t in self.tensors])


def gatherer(dataset: Any) -> Callable[[Tensor], Any] | None:
    """What makes one batch of the examples at indices (int64), if the dataset can: the batch of what `__getitem__` gives."""
    if isinstance(dataset, Subset) and type(dataset).__getitem__ is Subset.__getitem__:
        whole, indices = gatherer(dataset.dataset), dataset.indices
        return None if whole is None else lambda index: whole(_core.gather_rows(indices, index))
    if isinstance(dataset, Tensor):
        return lambda index: _core.gather_rows(dataset, index)
    gather: Callable[[Tensor], Any] | None = dataset.gather if _gathers(type(dataset)) else None
    return gather


def _gathers(kind: type) -> bool:
    """Whether `gather` makes batches: not where a subclass has `__getitem__` alone anew; of arrays the name means another thing."""
    first = next((base for base in kind.__mro__ if {"gather", "__getitem__"} & vars(base).keys()), object)
    return "gather" in vars(first) and not hasattr(kind, "__array__")


def expect_examples(op: str, dataset: Any) -> None:
    """Refuses what has no examples by number: of a table the numbers are those of its columns, of a column of pandas its labels."""
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise TypeError(f"{op}: expected a dataset with __getitem__ and __len__, got {type(dataset).__name__}")
    what = "table" if hasattr(dataset, "columns") else "column" if hasattr(dataset, "iloc") else ""
    if what and hasattr(dataset, "__array__"):
        got = f"a {what}, {type(dataset).__name__}; make a TensorDataset of its values"
        raise TypeError(f"{op}: expected a dataset of examples by number, got {got}")


class Subset:
    """The examples of a dataset at some indices. A slice gives a batch, or a list where the dataset makes no batches.

    Args:
        dataset: Any dataset.
        indices: Which of its examples, in order; integers in [0, len(dataset)).

    Raises:
        TypeError: Indices that are not integers, such as a mask; a dataset without examples by number, such as a table of pandas.
        IndexError: An index that the dataset does not have.

    Example:
        >>> evens = Subset(dataset, range(0, len(dataset), 2))
    """

    def __init__(self, dataset: Any, indices: Any) -> None:
        expect_examples("subset", dataset)
        if not isinstance(indices, Iterable):
            raise TypeError(f"subset: expected integers in one axis, got {type(indices).__name__}")
        given = np.asarray(indices if isinstance(indices, Tensor | np.ndarray) else list(indices))
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise TypeError(f"subset: expected integers in one axis, got {given.dtype} of shape {given.shape}")
        if given.size and not 0 <= given.min() <= given.max() < len(dataset):
            raise IndexError(f"subset: expected indices in [0, {len(dataset)}), got {given.min()} to {given.max()}")
        self.dataset = dataset
        self.indices = Tensor(given.astype(np.int64))

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            chosen, gather = self.indices[index], gatherer(self.dataset)
            return gather(chosen) if gather is not None else [self.dataset[i] for i in chosen.tolist()]
        return self.dataset[int(self.indices[index].item())]

    def __len__(self) -> int:
        return len(self.indices)


def random_split(dataset: Any, lengths: Iterable[float], generator: Generator | None = None) -> list[Subset]:
    """Divides a dataset at random.

    Args:
        dataset: Any dataset.
        lengths: Sizes that add up to the dataset's, or shares that add up to 1, rounded down; what is left goes to the first parts,
            one each.
        generator: What is drawn from; None is the default generator.

    Returns:
        One `Subset` per length.

    Raises:
        TypeError: Lengths that are no list, or of what is no number.
        ValueError: Lengths that do not add up.

    Example:
        >>> train, test = random_split(Digits(), [0.8, 0.2], treadle.Generator(0))
    """
    if not isinstance(lengths, Iterable):
        raise TypeError(f"random_split: expected a list of lengths or shares, got {type(lengths).__name__}")
    total, lengths = len(dataset), list(lengths)
    for length in lengths:
        number("random_split", "a length", length)
    sizes = lengths
    if abs(sum(sizes) - 1) < 1e-9:
        sizes = [int(total * share * (1 + 1e-12)) for share in lengths]  # 0.29 of 100 is 28.999999999999996
        for i in range(total - int(sum(sizes))):
            sizes[i % len(sizes)] += 1
    if sum(sizes) != total or any(n < 0 or n != int(n) for n in sizes):
        raise ValueError(f"random_split: expected lengths that add up to {total} (or shares to 1), got {lengths}")
    order = _core.randperm(total, generator)
    parts, start = [], 0
    for n in map(int, sizes):
        parts.append(Subset(dataset, order[start : start + n]))
        start += n
    return parts
