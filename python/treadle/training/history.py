"""What a training run went through, one row per epoch.

Invariant: every row has the same columns in the same order, and what `to_csv` wrote reads back equal, to the last bit.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from treadle import notebook
from treadle._core import Tensor
from treadle.serialization import write_atomic
from treadle.training import plots

__all__ = ["History", "Value", "packed", "unpacked"]

Value: TypeAlias = int | float | None


class History:
    """Rows of epoch, train_loss, train_accuracy, valid_loss, valid_accuracy, lr and seconds.

    With other metrics than accuracy their names take its place. A value that does not exist, as those of validation
    without validation data, is None.

    Args:
        rows: Rows to start with; all with the same columns.

    Raises:
        ValueError: Rows with different columns.

    Example:
        >>> history = History([{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.25}])
        >>> history["train_loss"]
        [0.5, 0.25]
    """

    def __init__(self, rows: list[dict[str, Value]] | None = None) -> None:
        self.rows: list[dict[str, Value]] = []
        for row in rows or []:
            self.append(row)

    def append(self, row: Mapping[str, Value]) -> None:
        """Adds the row of an epoch; numbers of NumPy, and Tensors of one, become Python's.

        Raises:
            TypeError: A value is no number and not None.
            ValueError: Its columns are not those of the rows before.
        """
        if self.rows and list(row) != self.columns:
            raise ValueError(f"history: expected columns {self.columns}, got {list(row)}")
        self.rows.append({name: _number(name, value) for name, value in row.items()})

    @property
    def columns(self) -> list[str]:
        """The names of the columns; empty before the first row."""
        return list(self.rows[0]) if self.rows else []

    def __getitem__(self, column: str) -> list[Value]:
        """A column, from the first epoch to the last; KeyError when there is none of that name."""
        if self.rows and column not in self.rows[0]:
            raise KeyError(f"history: expected one of {self.columns}, got {column!r}")
        return [row[column] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Value]]:
        return iter(self.rows)

    def __eq__(self, other: object) -> bool:
        return self.rows == other.rows if isinstance(other, History) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if not self.rows:
            return "History(0 epochs)"
        last = ", ".join(f"{name} {value:.4g}" for name, value in self.rows[-1].items() if value is not None)
        return f"History({len(self.rows)} epochs; last: {last})"

    def _repr_html_(self) -> str:
        cells = (["–" if value is None else f"{value:.4g}" for value in row.values()] for row in self.rows)
        return notebook.table(self.columns, cells) if self.rows else f"<p>{self!r}</p>"

    def plot(self) -> Any:
        """Draws the loss, and each metric, over the epochs; needs matplotlib, the extra `plot`.

        Returns:
            A matplotlib Figure, which notebooks show and `savefig` writes to a file.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: There are no rows.

        Example:
            >>> history.plot().savefig("curves.png")
        """
        return plots.curves(self)

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Writes the rows under a line of column names; the file is replaced as a whole or not at all.

        Args:
            path: The file to write. A missing value becomes an empty cell.

        Raises:
            OSError: The file cannot be written.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(["" if value is None else repr(value) for value in row.values()] for row in self.rows)
        write_atomic(path, text.getvalue().encode())

    @classmethod
    def from_csv(cls, path: str | PathLike[str]) -> History:
        """Reads what `to_csv` wrote.

        Args:
            path: The file to read.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: A row has too few or too many cells, or a cell that is not a number.

        Example:
            >>> History.from_csv("run/history.csv")["valid_loss"]
        """
        lines = list(csv.reader(io.StringIO(Path(path).read_text(encoding="utf-8"))))
        names = lines[0] if lines else []
        history = cls()
        for number, cells in enumerate(lines[1:], start=2):
            if len(cells) != len(names):
                raise ValueError(f"history: expected {len(names)} cells in line {number}, got {len(cells)}")
            history.append({name: _value(cell, number) for name, cell in zip(names, cells, strict=True)})
        return history


def packed(history: History) -> dict[str, list[Any]]:
    """A history as a checkpoint holds it: each column as an array, and, where values are None, another that says which."""
    return {name: _packed(history[name]) for name in history.columns}


def _packed(values: list[Value]) -> list[Any]:
    gaps, kinds = [value is None for value in values], {type(value) for value in values if value is not None}
    array = np.array([0 if value is None else value for value in values], np.int64 if kinds == {int} else np.float64)
    return [array, np.array(gaps)] if any(gaps) else [array]


def unpacked(columns: Mapping[str, list[Tensor]]) -> History:
    """The history that was packed."""
    lists = [[part.tolist() for part in parts] for parts in columns.values()]
    whole = [[None if gap else value for value, gap in zip(*parts, strict=True)] if parts[1:] else parts[0] for parts in lists]
    return History([dict(zip(columns, row, strict=True)) for row in zip(*whole, strict=True)])


def _number(column: str, value: Any) -> Value:
    if isinstance(value, np.generic | np.ndarray | Tensor) and value.shape == ():
        value = value.item()
    if value is None:
        return None
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    raise TypeError(f"history: expected a number or None as {column!r}, got a {type(value).__name__}")


def _value(cell: str, line: int) -> Value:
    """A cell as the number it spells: an int when it reads as one."""
    if not cell:
        return None
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    raise ValueError(f"history: expected a number in line {line}, got {cell!r}")
