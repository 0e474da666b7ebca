"""Data for the command line: digits, folders of IDX files, CSV files.

A recipe says how the rows of a source become what the model sees; it is plain JSON, kept in the folder of a run.
Invariant: whatever a recipe says was found in the training rows alone, and the same recipe treats every row alike.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from treadle._core import Generator, Tensor, gather_rows, gather_rows_scaled, randperm
from treadle.data import DataLoader, Digits
from treadle.data.datasets import read_mnist
from treadle.data.table import Schema, Table, read_csv
from treadle.moments import moments

__all__ = ["Prepared", "Recipe", "Rows", "in_units", "loader", "prepare", "rows_for"]

Recipe: TypeAlias = dict[str, Any]
Array: TypeAlias = npt.NDArray[Any]

_IMAGES = ("digits", "idx")
# Each number up to the largest label is a class of the model's: one of more is damage, as in a column of a CSV.
_MOST_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Rows:
    """A dataset for `DataLoader`: features (N, D), targets where known, and the rows' numbers in the source.

    Features in uint8 become `x·scale + offset` as they are gathered; others are ready. Answers are targets as the source has
    them: classes as numbers, or numbers to predict before they were scaled.
    """

    x: Tensor
    y: Tensor | None
    answers: Array | None
    numbers: Array
    scale: float = 1.0
    offset: float = 0.0

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(part[0] for part in self.gather(Tensor([index])))

    def gather(self, index: Tensor) -> tuple[Tensor, ...]:
        """The rows at `index` (int64): features, and targets where known."""
        images = self.x.dtype == "uint8"
        x = gather_rows_scaled(self.x, index, self.scale, self.offset) if images else gather_rows(self.x, index)
        return (x,) if self.y is None else (x, gather_rows(self.y, index))


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run needs of its data."""

    recipe: Recipe
    train: Rows
    test: Rows


def loader(rows: Rows, batch_size: int, generator: Generator | None = None) -> DataLoader:
    """Batches in order, or, with a generator, shuffled for training: then without a last batch of a single row."""
    train = generator is not None
    return DataLoader(rows, batch_size, train, train and len(rows) % batch_size == 1, generator)


def prepare(source: str, target: str | None, seed: int, begun: Recipe | None = None) -> Prepared:
    """Reads a source to train on: its own test part, or a random fifth of it, is held out.

    Args:
        source: "digits", a folder of IDX files or a CSV file.
        target: The column of the CSV to predict.
        seed: Decides which fifth.
        begun: The recipe of the run that goes on, if one does; it is that of the result.

    Raises:
        FileNotFoundError: There is no such source.
        ValueError: The source is damaged, too small, has too many classes, or needs a target, or it is not what the run began with.
    """
    kind = _kind(source)
    if begun is not None and begun["kind"] != kind:
        raise _other_data(source)
    if kind == "csv" and target is None:
        raise ValueError(f"{source}: expected the column to predict as --target, got none")
    if kind != "csv" and target:
        raise ValueError(f"{source}: expected no --target, as images have labels, got {target!r}")
    if kind == "csv":
        return _prepare_table(source, str(target), seed, begun)
    parts = [_images(source, kind, part, seed) for part in ("train", "test")]
    (train_x, train_y, _), (test_x, test_y, _) = parts
    if train_x.shape[1] != test_x.shape[1]:
        raise ValueError(f"{source}: expected test images of {train_x.shape[1]} pixels, got {test_x.shape[1]}")
    _enough(source, len(train_x), len(test_x))
    _varied(source, "the labels", np.unique(train_y).tolist())
    mean, std = _moments(train_x)
    recipe: Recipe = {
        "kind": kind,
        "dim": train_x.shape[1],
        "classes": _classes(source, {"train": train_y, "t10k": test_y}),
        "scale": 1.0 / std,
        "offset": -mean / std,
        "sha256": _digest("", train_x, train_y, test_x, test_y),
    }
    recipe = _continued(source, recipe, begun)
    return Prepared(recipe, *(_image_rows(recipe, *part) for part in parts))


def rows_for(recipe: Recipe, source: str, part: str | None, seed: int) -> Rows:
    """Rows of a source, treated as the rows that a model was trained on.

    Args:
        recipe: How to treat them.
        source: "digits", a folder of IDX files or a CSV file.
        part: "train", "test" or "all"; None: "all" of a CSV, otherwise "test".
        seed: Decides which fifth of digits or a CSV is the test part.

    Raises:
        FileNotFoundError: There is no such source.
        ValueError: The source is damaged, or not of the kind that the recipe is for.
    """
    kind = _kind(source)
    if (kind in _IMAGES) != (recipe["kind"] in _IMAGES):
        raise ValueError(f"{source}: expected {recipe['kind']} data as the model was trained on, got {kind}")
    if kind == "csv":
        schema = Schema.from_json(recipe["schema"])
        table = read_csv(source, schema.target, schema)
        return _table_rows(recipe, table, _part(len(table.features), part or "all", seed))
    x, y, numbers = _images(source, kind, part or "test", seed, labelled=False)
    if x.shape[1] != recipe["dim"]:
        raise ValueError(f"{source}: expected images of {recipe['dim']} pixels, got {x.shape[1]}")
    if y is not None and y.max(initial=0) >= len(recipe["classes"]):
        raise ValueError(f"{source}: expected classes 0 to {len(recipe['classes']) - 1}, got {y.max()}")
    return _image_rows(recipe, x, y, numbers)


def in_units(recipe: Recipe, outputs: Array) -> Array:
    """The outputs of a regression (N, 1) in the units of its answers (N,)."""
    values: Array = outputs.reshape(-1).astype(np.float64) * recipe["target_std"] + recipe["target_mean"]
    return values


def _kind(source: str) -> str:
    if source != "digits" and not Path(source).exists():
        raise FileNotFoundError(f"{source}: expected 'digits', a folder of IDX files or a CSV file, got nothing there")
    return "digits" if source == "digits" else "idx" if Path(source).is_dir() else "csv"


def _part(rows: int, part: str, seed: int) -> Array:
    """Which rows are in a part, in their order; the fifth that is held out depends on the seed alone."""
    if part == "all":
        return np.arange(rows)
    held = rows // 5
    order = randperm(rows, generator=Generator(seed)).numpy()
    return np.sort(order[:held] if part == "test" else order[held:])


def _varied(source: str, place: str, values: list[Any]) -> None:
    if len(values) < 2:
        raise ValueError(f"{source}: expected at least 2 different values in {place}, got only {values[0]!r}")


def _classes(source: str, labels: dict[str, Array]) -> list[str]:
    """The classes that labels, by part of the source, are the numbers of."""
    for part, numbers in labels.items():
        if numbers.max() >= _MOST_CLASSES:
            raise ValueError(f"{source}: expected labels below {_MOST_CLASSES}, got {numbers.max()} in {part}-labels-idx1-ubyte")
    return [str(number) for number in range(int(max(map(np.max, labels.values()))) + 1)]


def _enough(source: str, train: int, test: int) -> None:
    if train < 2 or test < 1:
        raise ValueError(f"{source}: expected at least 2 rows to train on and 1 to test, got {train} and {test}")


def _digest(text: str, *arrays: Array) -> str:
    """SHA-256 over all that a source holds for the model: a text, and each array's type, shape and bytes."""
    digest = hashlib.sha256(text.encode())
    for array in arrays:
        digest.update(f"\n{array.dtype.name}{array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _continued(source: str, recipe: Recipe, begun: Recipe | None) -> Recipe:
    """The recipe of the run that goes on, or of a new one; of equal data they differ at most by a machine's rounding."""
    if begun is not None and begun["sha256"] != recipe["sha256"]:
        raise _other_data(source)
    return begun or recipe


def _other_data(source: str) -> ValueError:
    return ValueError(f"resume: expected the data this run began with, got {source}, which is not; restore it, or train anew")


# images


def _images(source: str, kind: str, part: str, seed: int, labelled: bool = True) -> tuple[Array, Any, Array]:
    """Pixels uint8 (N, D), labels (N,) and row numbers of a part; no labels where some are missing and need not be there."""
    if kind == "digits":
        digits = Digits()
        numbers = _part(len(digits), part, seed)
        return digits.images.numpy().reshape(len(digits), -1)[numbers], digits.labels.numpy()[numbers], numbers
    parts = [train for train in (True, False) if part in ("all", "train" if train else "test")]
    images, labels = zip(*[read_mnist(source, train, labelled) for train in parts], strict=True)
    if any(one.dtype != "uint8" for one in images):
        raise ValueError(f"{source}: expected images of bytes, got {', '.join(str(one.dtype) for one in images)}")
    x = np.concatenate([one.numpy().reshape(len(one), math.prod(one.shape[1:])) for one in images])
    y = None if any(one is None for one in labels) else np.concatenate([one.numpy() for one in labels])
    return x, y, np.arange(len(x))


def _image_rows(recipe: Recipe, x: Array, y: Array | None, numbers: Array) -> Rows:
    return Rows(Tensor(x), None if y is None else Tensor(y), y, numbers, recipe["scale"], recipe["offset"])


def _moments(pixels: Array) -> tuple[float, float]:
    """Mean and standard deviation over all pixels, exact, from how often each of the 256 values is there."""
    counts = np.zeros(256, np.int64)
    for start in range(0, len(pixels), 4096):
        counts += np.bincount(pixels[start : start + 4096].reshape(-1), minlength=256)
    values, total = np.arange(256), max(int(counts.sum()), 1)
    mean = float(counts @ values) / total
    return mean, float(np.sqrt(counts @ np.square(values - mean) / total)) or 1.0


# tables


def _prepare_table(source: str, target: str, seed: int, begun: Recipe | None) -> Prepared:
    table = read_csv(source, target)
    assert table.target is not None
    _varied(source, f"column {target!r}", table.schema.classes or sorted(set(table.target.tolist())))
    n = len(table.features)
    train, test = (_part(n, part, seed) for part in ("train", "test"))
    _enough(source, len(train), len(test))
    if not table.features.shape[1]:
        raise ValueError(f"{source}: expected columns besides {target!r}, got none")
    numeric = np.concatenate([[c.categories is None] * c.width() for c in table.schema.columns]).astype(bool)
    mean, std = _scaling(table.features[train], numeric)
    recipe: Recipe = {
        "kind": "csv",
        "dim": table.features.shape[1],
        "classes": table.schema.classes,
        "schema": table.schema.to_json(),
        "mean": mean,
        "std": std,
        "sha256": _digest(json.dumps(table.schema.to_json()), table.features, table.target),
    }
    if table.schema.classes is None:
        (center,), (spread,) = _scaling(table.target[train, None], np.array([True]))
        recipe |= {"target_mean": center, "target_std": spread}
    recipe = _continued(source, recipe, begun)
    return Prepared(recipe, _table_rows(recipe, table, train), _table_rows(recipe, table, test))


def _scaling(values: Array, numeric: Array) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each column; 0 and 1 for categories."""
    mean, std = moments(values)
    return np.where(numeric, mean, 0.0).tolist(), np.where(numeric, std, 1.0).tolist()


def _table_rows(recipe: Recipe, table: Table, numbers: Array) -> Rows:
    x = ((table.features[numbers] - np.array(recipe["mean"])) / np.array(recipe["std"])).astype(np.float32)
    answers = None if table.target is None else table.target[numbers]
    y = answers
    if answers is not None and recipe["classes"] is None:
        y = ((answers[:, None] - recipe["target_mean"]) / recipe["target_std"]).astype(np.float32)
    return Rows(Tensor(x), None if y is None else Tensor(y), answers, numbers)
