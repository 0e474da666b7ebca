"""Tables from CSV files: columns become float32 features and a target, and a description that reads other files alike.

Invariant: a `Schema` read from one file and applied to another gives features of the same meaning, or an error.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["Column", "Schema", "Table", "read_csv"]

_MISSING = frozenset({"", "na", "nan", "null", "none", "?"})


@dataclass
class Column:
    """One column: numeric if it has no categories, otherwise one feature per category."""

    name: str
    categories: list[str] | None = None

    def width(self) -> int:
        """How many features it becomes."""
        return 1 if self.categories is None else len(self.categories)


@dataclass
class Schema:
    """What the columns of a file mean.

    Attributes:
        columns: The features, in the order of the file they were read from.
        target: The name of the target column.
        classes: The names of the classes, sorted; None if the target is a number to predict.
    """

    columns: list[Column]
    target: str
    classes: list[str] | None = None

    def to_json(self) -> dict[str, Any]:
        """As dicts and lists."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls([Column(**column) for column in data["columns"]], data["target"], data["classes"])


@dataclass
class Table:
    """A file that was read.

    Attributes:
        features: float32 (N, D).
        target: int64 class numbers or float32 values, (N,); None if the file has no target column.
        schema: What the columns mean.
    """

    features: npt.NDArray[np.float32]
    target: npt.NDArray[Any] | None
    schema: Schema = field(repr=False)


def read_csv(path: str | PathLike[str], target: str, schema: Schema | None = None) -> Table:
    """Reads a CSV file with a header line.

    A column whose values are all numbers is numeric; any other is categorical, one feature per category, sorted. A target of
    text, or of at most 20 different whole numbers, is a class; otherwise it is a number to predict.

    Args:
        path: The file.
        target: Name of the column to predict.
        schema: Reads the columns as another file's were; then the target column may be missing.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No such column, missing values (named with line and column), lines of unequal length, a category that the
            schema does not know, or an empty file.

    Example:
        >>> table = read_csv("penguins.csv", target="species")
        >>> table.features.shape, table.schema.classes
    """
    header, rows = _rows(path)
    if schema is None and target not in header:
        raise ValueError(f"read_csv: expected a column {target!r} in {path}, got {header}")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    _check_missing(path, {name: values for name, values in columns.items() if schema is None or name in _used(schema)})
    schema = schema or _infer(columns, target)
    absent = [column.name for column in schema.columns if column.name not in columns]
    if absent:
        raise ValueError(f"read_csv: expected columns {[c.name for c in schema.columns]} in {path}, got none named {absent}")
    blocks = [_features(path, column, columns[column.name]) for column in schema.columns]
    features = np.concatenate(blocks, axis=1) if blocks else np.zeros((len(rows), 0), np.float32)
    values = columns.get(schema.target)
    return Table(features, None if values is None else _target(path, schema, values), schema)


def _used(schema: Schema) -> set[str]:
    return {column.name for column in schema.columns} | {schema.target}


def _rows(path: str | PathLike[str]) -> tuple[list[str], list[list[str]]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"read_csv: expected CSV text in UTF-8, got a file that cannot be read, {path} ({error})") from None
    if len(lines) < 2:
        raise ValueError(f"read_csv: expected a header line and rows, got {len(lines)} lines in {path}")
    header = lines[0]
    if len(set(header)) != len(header):
        raise ValueError(f"read_csv: expected distinct column names, got {header} in {path}")
    for number, line in enumerate(lines[1:], start=2):
        if line and len(line) != len(header):
            raise ValueError(f"read_csv: expected {len(header)} cells, got {len(line)} in line {number} of {path}")
    return header, [line for line in lines[1:] if line]


def _check_missing(path: str | PathLike[str], columns: dict[str, list[str]]) -> None:
    found = [(row, name) for name, values in columns.items() for row, v in enumerate(values, 2) if v.lower() in _MISSING]
    if found:
        row, name = min(found)
        raise ValueError(
            f"read_csv: expected no missing values, got {len(found)}, the first in line {row}, column {name!r} of {path}"
        )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _numeric(values: list[str]) -> bool:
    return all(_number(v) is not None for v in values)


def _infer(columns: dict[str, list[str]], target: str) -> Schema:
    def described(name: str, values: list[str]) -> Column:
        return Column(name) if _numeric(values) else Column(name, sorted(set(values)))

    wanted = columns[target]
    classes: list[str] | None = None
    if not _numeric(wanted):
        classes = sorted(set(wanted))
    elif len(set(wanted)) <= 20 and all(float(v).is_integer() for v in set(wanted)):
        classes = sorted(set(wanted), key=float)
    return Schema([described(n, v) for n, v in columns.items() if n != target], target, classes)


def _codes(path: str | PathLike[str], name: str, known: list[str], values: list[str]) -> Iterator[int]:
    places = {category: i for i, category in enumerate(known)}
    for row, value in enumerate(values, 2):
        if value not in places:
            raise ValueError(f"read_csv: expected one of {known} in column {name!r}, got {value!r} in line {row} of {path}")
        yield places[value]


def _features(path: str | PathLike[str], column: Column, values: list[str]) -> npt.NDArray[np.float32]:
    if column.categories is None:
        return _numbers(path, column.name, values)[:, None]
    codes = list(_codes(path, column.name, column.categories, values))
    return np.eye(len(column.categories), dtype=np.float32)[codes]


def _numbers(path: str | PathLike[str], name: str, values: list[str]) -> npt.NDArray[np.float32]:
    out = np.empty(len(values), np.float32)
    for i, text in enumerate(values):
        value = _number(text)
        if value is None:
            raise ValueError(f"read_csv: expected numbers in column {name!r}, got {text!r} in line {i + 2} of {path}")
        out[i] = value
    return out


def _target(path: str | PathLike[str], schema: Schema, values: list[str]) -> npt.NDArray[Any]:
    if schema.classes is None:
        return _numbers(path, schema.target, values)
    return np.fromiter(_codes(path, schema.target, schema.classes, values), np.int64, len(values))
