"""`DataLoader`: batches of a dataset, in order or shuffled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from treadle import _core
from treadle._core import Generator, Tensor
from treadle.data.dataset import Subset, TensorDataset

__all__ = ["DataLoader", "collate"]


def collate(examples: list[Any]) -> Any:
    """Examples as one batch: tensors, arrays and numbers are stacked; tuples, lists and dicts are collated part by part.

    Raises:
        TypeError: Examples of another kind.
        ValueError: Examples that differ in shape.
    """
    first = examples[0]
    if isinstance(first, Tensor):
        return _core.stack(examples)
    if isinstance(first, Mapping):
        return {name: collate([e[name] for e in examples]) for name in first}
    if isinstance(first, tuple | list):
        return tuple(collate(list(parts)) for parts in zip(*examples, strict=True))
    if isinstance(first, np.ndarray):
        return Tensor(np.stack(examples))
    if isinstance(first, bool | int | float | np.generic):
        return Tensor(np.asarray(examples)) if isinstance(first, np.generic) else Tensor(examples)
    raise TypeError(f"data_loader: expected tensors, arrays, numbers, tuples or dicts, got {type(first).__name__}")


class DataLoader:
    """Iterates over batches of a dataset; every iteration with `shuffle` draws a new order.

    A `TensorDataset`, or a `Subset` of one, is gathered batch by batch in the core; other datasets example by example.

    Args:
        dataset: Anything with `__getitem__` and `__len__`.
        batch_size: Examples per batch.
        shuffle: Whether the order is random.
        drop_last: Whether a last batch that is not full is left out.
        generator: What the order is drawn from; None is the default generator.
        transform: Applied to every batch: a tuple's parts are its arguments.

    Raises:
        ValueError: A batch_size below 1.

    Example:
        >>> for x, y in DataLoader(dataset, batch_size=32, shuffle=True):
        ...     ...
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        generator: Generator | None = None,
        transform: Callable[..., Any] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"data_loader: expected batch_size of at least 1, got {batch_size}")
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise TypeError(f"data_loader: expected a dataset with __getitem__ and __len__, got {type(dataset).__name__}")
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.generator, self.transform = generator, transform

    def __len__(self) -> int:
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        n = len(self.dataset)
        order = _core.randperm(n, self.generator) if self.shuffle else _core.arange(n)
        batch_of = self._batches()
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            batch = batch_of(order[start : start + self.batch_size])
            if self.transform is not None:
                batch = self.transform(*batch) if isinstance(batch, tuple) else self.transform(batch)
            yield batch

    def _batches(self) -> Callable[[Tensor], Any]:
        """What makes a batch of indices."""
        dataset = self.dataset
        if isinstance(dataset, TensorDataset):
            return dataset.gather
        if isinstance(dataset, Subset) and isinstance(dataset.dataset, TensorDataset):
            whole, indices = dataset.dataset, dataset.indices
            return lambda index: whole.gather(_core.gather_rows(indices, index))
        return lambda index: collate([dataset[i] for i in index.tolist()])
