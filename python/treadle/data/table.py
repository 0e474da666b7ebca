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

# A column becomes one feature per category: one of more is an identifier, free text, or numbers with a stray word.
_MOST_CATEGORIES = 1000
# A cell of a few bytes becomes up to 1000 features: a small file could ask for any amount of memory.
_MOST_BYTES = 1 << 30
_LARGEST = float(np.finfo(np.float32).max)
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
        """The inverse of `to_json`; ValueError when it did not make the data."""
        try:
            return cls([Column(**column) for column in data["columns"]], data["target"], data["classes"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"read_csv: expected a schema of columns, target and classes, got another object ({error})") from None


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
    text, or of at most 20 different whole numbers (1 and 1.0 are the same), is a class; otherwise it is a number to predict.

    Args:
        path: The file.
        target: Name of the column to predict.
        schema: Reads the columns as another file's were; then the target column may be missing.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No such column, missing values (named with line and column), lines of unequal length, a category that the
            schema does not know, more than 1000 categories in a column, categories that become more than 1 GiB of features, or
            no rows.

    Example:
        >>> table = read_csv("penguins.csv", target="species")
        >>> table.features.shape, table.schema.classes
    """
    file = _read(path)
    if schema is None and target not in file.columns:
        raise ValueError(f"read_csv: expected a column {target!r} in {path}, got {list(file.columns)}")
    _check_missing(file, list(file.columns) if schema is None else [*_names(schema), schema.target])
    schema = schema or _infer(file, target)
    absent = [name for name in _names(schema) if name not in file.columns]
    if absent:
        raise ValueError(f"read_csv: expected columns {_names(schema)} in {path}, got none named {absent}")
    return Table(_features(file, schema), _target(file, schema) if schema.target in file.columns else None, schema)


def _names(schema: Schema) -> list[str]:
    return [column.name for column in schema.columns]


@dataclass
class _File:
    """The cells of a file by column, and the line that each row ends on."""

    path: str | PathLike[str]
    columns: dict[str, list[str]]
    lines: list[int]

    def place(self, row: int) -> str:
        return f"line {self.lines[row]} of {self.path}"


def _read(path: str | PathLike[str]) -> _File:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            found = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"read_csv: expected CSV text in UTF-8, got a file that cannot be read, {path} ({error})") from None
    if len(found) < 2:
        raise ValueError(f"read_csv: expected a header line and rows, got {len(found)} lines in {path}")
    (_, header), *rows = found
    if len(set(header)) != len(header):
        raise ValueError(f"read_csv: expected distinct column names, got {header} in {path}")
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"read_csv: expected {len(header)} cells, got {len(row)} in line {line} of {path}")
    columns = {name: [row[i] for _, row in rows] for i, name in enumerate(header)}
    return _File(path, columns, [line for line, _ in rows])


def _check_missing(file: _File, names: list[str]) -> None:
    found = [(row, name) for name in names for row, value in enumerate(file.columns.get(name, [])) if value.lower() in _MISSING]
    if found:
        row, name = min(found)
        got = f"{len(found)}, the first in line {file.lines[row]}, column {name!r} of {file.path}"
        raise ValueError(f"read_csv: expected no missing values, got {got}")


def _number(text: str) -> float | None:
    """The text as a number that float32 can hold; Python's 1_000 is none."""
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return value if abs(value) <= _LARGEST else None


def _numeric(values: list[str]) -> bool:
    return all(_number(v) is not None for v in values)


def _infer(file: _File, target: str) -> Schema:
    def described(name: str, values: list[str]) -> Column:
        return Column(name) if _numeric(values) else Column(name, _categories(file, name))

    wanted = file.columns[target]
    classes: list[str] | None = None
    if not _numeric(wanted):
        classes = _categories(file, target)
    elif len(numbers := set(map(float, set(wanted)))) <= 20 and all(map(float.is_integer, numbers)):
        classes = [str(int(number)) for number in sorted(numbers)]
    return Schema([described(n, v) for n, v in file.columns.items() if n != target], target, classes)


def _categories(file: _File, name: str) -> list[str]:
    values = file.columns[name]
    found = sorted(set(values))
    if len(found) > _MOST_CATEGORIES:
        row = next(row for row, value in enumerate(values) if _number(value) is None)
        got = f"{len(found)}; the first that is not a number is {values[row]!r} in {file.place(row)}"
        raise ValueError(f"read_csv: expected at most {_MOST_CATEGORIES} categories in column {name!r}, got {got}")
    return found


def _codes(file: _File, name: str, known: list[str]) -> Iterator[int]:
    places: dict[Any, int] = {category: i for i, category in enumerate(known)}
    if _numeric(known):
        places |= {_number(category): i for category, i in places.items()}
    for row, value in enumerate(file.columns[name]):
        place = places.get(value)
        if place is None and (place := places.get(_number(value))) is None:
            raise ValueError(f"read_csv: expected one of {known} in column {name!r}, got {value!r} in {file.place(row)}")
        yield place


def _features(file: _File, schema: Schema) -> npt.NDArray[np.float32]:
    rows, width = len(file.lines), sum(column.width() for column in schema.columns)
    categorical = 4 * rows * sum(column.width() for column in schema.columns if column.categories is not None)
    if categorical > _MOST_BYTES:
        got = f"{categorical} from {rows} rows of {file.path}"
        raise ValueError(f"read_csv: expected categories that become at most {_MOST_BYTES} bytes of features, got {got}")
    out, first = np.zeros((rows, width), np.float32), 0
    for column in schema.columns:
        if column.categories is None:
            out[:, first] = _numbers(file, column.name)
        else:
            codes = np.fromiter(_codes(file, column.name, column.categories), np.int64, rows)
            out[np.arange(rows), first + codes] = 1
        first += column.width()
    return out


def _numbers(file: _File, name: str) -> npt.NDArray[np.float32]:
    out = np.empty(len(file.lines), np.float32)
    for row, text in enumerate(file.columns[name]):
        value = _number(text)
        if value is None:
            raise ValueError(f"read_csv: expected numbers in column {name!r}, got {text!r} in {file.place(row)}")
        out[row] = value
    return out


def _target(file: _File, schema: Schema) -> npt.NDArray[Any]:
    if schema.classes is None:
        return _numbers(file, schema.target)
    return np.fromiter(_codes(file, schema.target, schema.classes), np.int64, len(file.lines))
