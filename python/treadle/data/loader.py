"""`DataLoader`: batches of a dataset, in order or shuffled."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from treadle import _core
from treadle._core import Generator, Tensor
from treadle.checks import at_least, flag
from treadle.data.dataset import expect_examples, gatherer

__all__ = ["DataLoader", "collate"]


def collate(examples: list[Any]) -> Any:
    """Examples as one batch: tensors, arrays and numbers are stacked; tuples, lists and dicts are collated part by part.

    Args:
        examples: At least one.

    Returns:
        Tensors whose first axis runs over the examples, in the structure of an example (lists become tuples, named tuples keep
        their names).

    Raises:
        TypeError: Examples of another kind, or of several.
        ValueError: No examples, or some that differ in shape, type or structure.

    Example:
        >>> collate([{"x": np.zeros(3), "y": 1}, {"x": np.ones(3), "y": 0}])["x"].shape
        (2, 3)
    """
    if len(examples) == 0:
        raise ValueError("collate: expected at least one example, got none")
    first = examples[0]
    if isinstance(first, Tensor):
        _alike(examples, Tensor, lambda e: (e.shape, e.dtype))
        return _core.stack(examples)
    if isinstance(first, Mapping):
        _alike(examples, Mapping, lambda e: sorted(e, key=str))
        return {name: collate([e[name] for e in examples]) for name in first}
    if isinstance(first, tuple | list):
        _alike(examples, type(first), len)
        parts = (collate(list(part)) for part in zip(*examples, strict=True))
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    if isinstance(first, np.ndarray | np.generic):
        _alike(examples, np.ndarray | np.generic, lambda e: (e.shape, e.dtype))
        return Tensor(np.stack(examples))
    if isinstance(first, bool | int | float):
        _alike(examples, bool | int | float, lambda _: None)
        return Tensor(examples)
    raise TypeError(f"data_loader: expected treadle tensors, arrays, numbers, tuples or dicts, got {type(first).__name__}")


def _alike(examples: list[Any], kind: Any, fact: Callable[[Any], Any]) -> None:
    """Examples of a batch must be of one kind, and agree in a fact such as their shape."""
    first = fact(examples[0])
    for example in examples:
        if not isinstance(example, kind):
            names = f"{type(examples[0]).__name__} and {type(example).__name__}"
            raise TypeError(f"data_loader: expected examples of one kind in a batch, got {names}")
        if fact(example) != first:
            got = " and ".join(" ".join(map(str, f)) if isinstance(f, tuple) else str(f) for f in (first, fact(example)))
            raise ValueError(f"data_loader: expected examples alike in a batch, got {got}")


def _transformed(transform: Callable[..., Any], batch: Any) -> Any:
    parts = batch if isinstance(batch, tuple) else (batch,)
    try:
        return transform(*parts)
    except TypeError:
        if _takes(transform, len(parts)):
            raise
        name = getattr(transform, "__name__", type(transform).__name__)
        hint = "; for inputs alone, lambda x, y: (f(x), y)" if len(parts) == 2 else ""
        raise TypeError(
            f"data_loader: expected a transform of {len(parts)} arguments, the parts of a batch, got {name}{hint}"
        ) from None


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many arguments, as far as that can be known."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # one without a signature
        return True
    return True


_CUT = 1024  # batches whose indices are cut from the order at once


class DataLoader:
    """Iterates over batches of a dataset; every iteration with `shuffle` draws a new order.

    A dataset with `gather(index)`, such as `TensorDataset`, or a `Subset` of one, gives whole batches at once, gathered in the
    core; others are read example by example and collated, among them subclasses that define `__getitem__` anew, but not `gather`.

    Args:
        dataset: Anything with `__getitem__` and `__len__`.
        batch_size: Examples per batch.
        shuffle: Whether the order is random.
        drop_last: Whether a last batch that is not full is left out.
        generator: What the order is drawn from; None is the default generator.
        transform: Applied to every batch: a tuple's parts are its arguments. One that takes inputs alone, such as
            `Normalize`, becomes `lambda x, y: (normalize(x), y)`.

    Raises:
        ValueError: A batch_size below 1, or another shuffle or drop_last than True and False.
        TypeError: A dataset without examples by number, such as a table of pandas, or a batch_size that is not an integer;
            while it iterates, a transform that takes another number of arguments.

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
        batch_size = at_least("data_loader", "batch_size", batch_size, 1)
        expect_examples("data_loader", dataset)
        self.dataset, self.batch_size = dataset, batch_size
        self.shuffle, self.drop_last = flag("data_loader", "shuffle", shuffle), flag("data_loader", "drop_last", drop_last)
        self.generator, self.transform = generator, transform

    def __len__(self) -> int:
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        n = len(self.dataset)
        order = _core.randperm(n, self.generator) if self.shuffle else _core.arange(n)
        dataset = self.dataset
        batch_of = gatherer(dataset) or (lambda index: collate([dataset[i] for i in index.tolist()]))
        for index in self._indices(order):
            batch = batch_of(index)
            yield batch if self.transform is None else _transformed(self.transform, batch)

    def _indices(self, order: Tensor) -> Iterator[Tensor]:
        """The order in batches. Many are cut at once: to cut one costs a quarter of what a small batch does."""
        end, many = min(len(self) * self.batch_size, order.size), _CUT * self.batch_size
        for start in range(0, end, many):
            yield from _core.split(order[start : min(start + many, end)], self.batch_size)
