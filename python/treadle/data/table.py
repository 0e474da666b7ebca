"""Tables from CSV files: columns become features and a target, and a description that reads other files alike.

Invariants: a `Schema` read from one file and applied to another gives features of the same meaning, or an error; a number
becomes the float64 nearest to it, and lies within what float32 can hold; classes keep all their digits.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from decimal import Decimal, InvalidOperation
from os import PathLike
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["Column", "Schema", "Table", "read_csv"]

# A column becomes one feature per category: one of more is an identifier, free text, or numbers with a stray word.
_MOST_CATEGORIES = 1000
# A target of whole numbers with more of them is a number to predict; a column of more is not one of categories by intent.
_MOST_CLASSES = 20
# A cell of a few bytes becomes up to 1000 features: a small file could ask for any amount of memory.
_MOST_BYTES = 1 << 30
_LARGEST = float(np.finfo(np.float32).max)
_MISSING = frozenset({"", "?", "na", "n/a", "#na", "#n/a", "<na>", "nan", "+nan", "-nan", "nil", "null", "none"})


@dataclass
class Column:
    """One column: numeric if `categories` is None, otherwise one feature per category."""

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
            schema = cls([Column(**column) for column in data["columns"]], data["target"], data["classes"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"read_csv: expected a schema of columns, target and classes, got another object ({error})") from None
        for name in (schema.target, *_names(schema)):
            if not isinstance(name, str):
                raise ValueError(f"read_csv: expected a schema whose names are strings, got {name!r:.100}")
        for texts in (schema.classes, *(column.categories for column in schema.columns)):
            if texts is not None and not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
                raise ValueError(
                    f"read_csv: expected a schema whose classes and categories are lists of strings, got {texts!r:.100}"
                )
        return schema


@dataclass
class Table:
    """A file that was read.

    Attributes:
        features: float64 (N, D), each the nearest to the number in the file; whole ones beyond 2**53 may lose digits. Standardise
            them first and make them float32 then: of large numbers that differ by little, such as times, float32 alone would
            leave nothing.
        target: int64 class numbers or float64 values, (N,); None if the file has no target column.
        schema: What the columns mean.
    """

    features: npt.NDArray[np.float64]
    target: npt.NDArray[Any] | None
    schema: Schema = field(repr=False)


def read_csv(path: str | PathLike[str], target: str, schema: Schema | None = None) -> Table:
    """Reads a CSV file: cells separated by commas, a header line first.

    A column whose values are all numbers is numeric; any other is categorical, one feature per category, sorted. A target of
    text, or of at most 20 different whole numbers (1 and 1.0 are the same), is a class; otherwise it is a number to predict.
    Where more than half of a column are numbers, more than 20 different ones, the others are taken for mistakes.

    Args:
        path: The file.
        target: Name of the column to predict.
        schema: Reads the columns as another file's were, and predicts the same; then the target column may be missing.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: A schema that is no Schema, such as a dict.
        ValueError: No such column, a target other than the schema's, another separator, a quote that opens and does not
            close, a cell of more than `csv.field_size_limit()` characters, missing values (named with line and column; nothing,
            ? or a word such as NA, N/A, NaN, null, nil or None), lines of unequal length, a number that float32 cannot hold, a
            word among numbers, a category that the schema does not know, more than 1000 categories in a column, categories that
            become more than 1 GiB of features, or no rows.

    Example:
        >>> table = read_csv("penguins.csv", target="species")
        >>> x = table.features
        >>> x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)
    """
    if not isinstance(schema, Schema | None):
        raise TypeError(f"read_csv: expected a Schema, got {type(schema).__name__}; Schema.from_json makes one of its to_json()")
    if schema is not None and target != schema.target:
        raise ValueError(f"read_csv: expected the target {schema.target!r} as in the schema, got {target!r}")
    file = _read(path)
    if schema is None and target not in file.columns:
        raise ValueError(f"read_csv: expected a column {target!r} in {path}, got {list(file.columns)}")
    _check_missing(file, list(file.columns) if schema is None else [*_names(schema), schema.target])
    schema = schema or _infer(file, target)
    absent = [name for name in _names(schema) if name not in file.columns]
    if absent:
        got = f"none named {absent} in the header {list(file.columns)}"
        raise ValueError(f"read_csv: expected columns {_names(schema)} in {path}, got {got}")
    return Table(_features(file, schema), _target(file, schema) if schema.target in file.columns else None, schema)


def _names(schema: Schema) -> list[str]:
    return [column.name for column in schema.columns]


@dataclass
class _File:
    """The cells of a file by column, those of columns that are all numbers as numbers too, and the line that each row ends on."""

    path: str | PathLike[str]
    columns: dict[str, list[str]]
    numbers: dict[str, npt.NDArray[np.float64]]
    lines: list[int]

    def place(self, row: int) -> str:
        return f"line {self.lines[row]} of {self.path}"


def _rows(path: str | PathLike[str]) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, and the line that each ends on."""
    begin = 1  # the line in which the row under way begins
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if row:
                    yield reader.line_num, list(map(str.strip, row))
                begin = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise ValueError(f"read_csv: expected CSV text in UTF-8, got a file that cannot be read, {path} ({error})") from None
    except csv.Error as error:
        long = "field limit" in str(error)  # also where a quote opens and does not close
        wanted = f"cells of at most {csv.field_size_limit()} characters and " if long else ""
        got = f"a row that begins in line {begin} of {path} and cannot be read ({error})"
        raise ValueError(f"read_csv: expected CSV text with {wanted}quotes in pairs, got {got}") from None


def _read(path: str | PathLike[str]) -> _File:
    found = list(_rows(path))
    if len(found) < 2:
        raise ValueError(f"read_csv: expected a header line and rows, got {len(found)} lines in {path}")
    (_, header), *rows = found
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise ValueError(f"read_csv: expected cells separated by commas, got the header {header[0]!r} in {path}")
    if len(set(header)) != len(header):
        raise ValueError(f"read_csv: expected distinct column names, got {header} in {path}")
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"read_csv: expected {len(header)} cells, got {len(row)} in line {line} of {path}")
    columns = dict(zip(header, map(list, zip(*(row for _, row in rows), strict=True)), strict=True))
    numbers = {name: values for name, texts in columns.items() if (values := _all_numbers(texts)) is not None}
    return _File(path, columns, numbers, [line for line, _ in rows])


def _check_missing(file: _File, names: list[str]) -> None:
    suspect = [name for name in names if name not in file.numbers or np.isnan(file.numbers[name]).any()]
    found = [(row, name) for name in suspect for row, value in enumerate(file.columns.get(name, [])) if value.lower() in _MISSING]
    if found:
        row, name = min(found)
        got = f"{len(found)}, the first in line {file.lines[row]}, column {name!r} of {file.path}"
        raise ValueError(f"read_csv: expected no missing values, got {got}")


def _number(text: str) -> float | None:
    """The text as a number, whether or not float32 can hold it; Python's 1_000 is none."""
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None


def _all_numbers(texts: list[str]) -> npt.NDArray[np.float64] | None:
    """What `_number` makes of each, without a call for each; None where one is none."""
    try:
        return None if "_" in "".join(texts) else np.fromiter(map(float, texts), np.float64, len(texts))
    except ValueError:
        return None


def _exact(text: str) -> Decimal | None:
    """The text as a number with all its digits: float64 takes whole numbers beyond 2**53 for each other."""
    number = _number(text)
    try:
        return None if number is None else Decimal(text)
    except InvalidOperation:  # an exponent of more digits than Decimal takes: an infinity or 0
        return Decimal(str(number))


def _numeric(file: _File, name: str) -> bool:
    """Whether a column is one of numbers; ValueError where most of it is, but not all."""
    if name in file.numbers:
        return True
    parsed = {text: _number(text) for text in set(file.columns[name])}
    numbers = [parsed[text] for text in file.columns[name]]
    words = [row for row, number in enumerate(numbers) if number is None]
    different = set(numbers) - {None}
    if 2 * len(words) < len(numbers) and len(different) > _MOST_CLASSES:
        most = f"as {len(numbers) - len(words)} of {len(numbers)} are"
        got = f"{file.columns[name][words[0]]!r} in {file.place(words[0])}; correct it, or write the others as words too"
        raise ValueError(f"read_csv: expected numbers in column {name!r}, {most}, got {got}")
    return False


def _infer(file: _File, target: str) -> Schema:
    columns = [Column(name, None if _numeric(file, name) else _categories(file, name)) for name in file.columns if name != target]
    return Schema(columns, target, _whole_numbers(file, target) if _numeric(file, target) else _categories(file, target))


def _whole_numbers(file: _File, name: str) -> list[str] | None:
    """The classes of a column of a few different whole numbers, sorted; None of any other."""
    texts: dict[Any, str] = {}
    for text in dict.fromkeys(file.columns[name]):
        texts.setdefault(_exact(text), text)
        if len(texts) > _MOST_CLASSES:
            return None
    if any(not number.is_finite() or number != number.to_integral_value() for number in texts):
        return None
    # Beyond what float32 can hold only the text of the file is fit for a name: 1e300 has 301 digits.
    return [str(int(number)) if number.copy_abs() <= _LARGEST else texts[number] for number in sorted(texts)]


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
    if None not in map(_exact, known):
        places |= {_exact(category): i for category, i in places.items()}
    for row, value in enumerate(file.columns[name]):
        place = places.get(value)
        if place is None and (place := places.get(_exact(value))) is None:
            raise ValueError(f"read_csv: expected one of {known} in column {name!r}, got {value!r} in {file.place(row)}")
        yield place


def _features(file: _File, schema: Schema) -> npt.NDArray[np.float64]:
    rows, width = len(file.lines), sum(column.width() for column in schema.columns)
    categorical = 8 * rows * sum(column.width() for column in schema.columns if column.categories is not None)
    if categorical > _MOST_BYTES:
        got = f"{categorical} from {rows} rows of {file.path}"
        raise ValueError(f"read_csv: expected categories that become at most {_MOST_BYTES} bytes of features, got {got}")
    out, first = np.zeros((rows, width)), 0
    for column in schema.columns:
        if column.categories is None:
            out[:, first] = _numbers(file, column.name)
        else:
            codes = np.fromiter(_codes(file, column.name, column.categories), np.int64, rows)
            out[np.arange(rows), first + codes] = 1
        first += column.width()
    return out


def _numbers(file: _File, name: str) -> npt.NDArray[np.float64]:
    found = file.numbers.get(name)
    if found is not None and (np.abs(found) <= _LARGEST).all():
        return found
    values = ((row, text, _number(text)) for row, text in enumerate(file.columns[name]))
    row, text, value = next(item for item in values if item[2] is None or not abs(item[2]) <= _LARGEST)
    bound = "" if value is None else f" of at most {_LARGEST:.4g}"
    raise ValueError(f"read_csv: expected numbers{bound} in column {name!r}, got {text!r} in {file.place(row)}")


def _target(file: _File, schema: Schema) -> npt.NDArray[Any]:
    if schema.classes is None:
        return _numbers(file, schema.target)
    return np.fromiter(_codes(file, schema.target, schema.classes), np.int64, len(file.lines))
