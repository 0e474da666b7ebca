"""The folder a run leaves: which files it has, and the model that is in it.

Invariants: `config.json` and `model.safetensors` together say all there is to know to use the model; nothing in them, but where
the data lay, depends on the machine, the time or the number of threads. Nothing is written over or taken away but what a run
left.
"""

from __future__ import annotations

import json
import os
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import Any

from treadle._core import __version__
from treadle.cli.options import LEAST, OPTIMIZERS, SCHEDULES
from treadle.data.table import Schema
from treadle.models import MLPResNet
from treadle.serialization import load, write_atomic
from treadle.training.saved import Checkpoints

__all__ = [
    "CHECKPOINT",
    "CONFIG",
    "CONFUSION",
    "CURVES",
    "HISTORY",
    "MODEL",
    "PREDICTIONS",
    "holds_run",
    "keep",
    "keep_run",
    "load_model",
    "read_config",
    "take_over",
    "write_config",
]

MODEL, CONFIG, HISTORY, PREDICTIONS = "model.safetensors", "config.json", "history.csv", "predictions.csv"
CURVES, CONFUSION, CHECKPOINT = "curves.png", "confusion.png", "checkpoint.safetensors"
_LEFT = (MODEL, HISTORY, CURVES, CONFUSION, PREDICTIONS, CHECKPOINT)

# What `config.json` must have, by section; of the data, by its kind. A string is a choice, all others are types.
_NUMBER = (int, float)
_OPTIONS: dict[str, Any] = {
    "data": str,
    "target": (str, NoneType),
    "epochs": int,
    "batch_size": int,
    "optimizer": OPTIMIZERS,
    "lr": _NUMBER,
    "schedule": SCHEDULES,
    "weight_decay": _NUMBER,
    "hidden": int,
    "blocks": int,
    "dropout": _NUMBER,
    "seed": int,
}
_MODEL: dict[str, Any] = {"dim": int, "hidden_dim": int, "num_blocks": int, "num_classes": int, "drop_prob": _NUMBER}
_KINDS: dict[str, Any] = {"kind": ("digits", "idx", "csv"), "dim": int}
_IMAGES: dict[str, Any] = {"classes": list, "scale": _NUMBER, "offset": _NUMBER}
_TABLE: dict[str, Any] = {"classes": (list, NoneType), "schema": dict, "mean": list, "std": list}
_TARGET: dict[str, Any] = {"target_mean": _NUMBER, "target_std": _NUMBER}


def holds_run(folder: Path, source: str) -> bool:
    """Whether a new run on a source finds an earlier one in its folder.

    Raises:
        ValueError: The folder has files under the names of a run's that no run made, or the source is among them.
    """
    found = [name for name in (CONFIG, *_LEFT) if (folder / name).exists()]
    for name in found:
        keep(source, folder / name)
    try:
        held = bool(found) and bool(read_config(folder))
    except (FileNotFoundError, ValueError) as error:
        got = f"{', '.join(found)} without a run ({error})"
        raise ValueError(f"{folder}: expected nothing to write over but an earlier run, got {got}; choose another --out") from None
    Checkpoints(folder / CHECKPOINT).expect_free()
    return held


def keep(source: str, path: Path) -> None:
    """ValueError when a file that will be written is the source."""
    if path.is_file() and os.path.exists(source) and path.samefile(source):
        raise ValueError(f"{source}: expected the data outside of what is written, got {path}; choose another --out")


def keep_run(folder: str, path: Path) -> None:
    """ValueError when a file that will be written is one of a run's, but for its predictions."""
    names = {CONFIG, *_LEFT} - {PREDICTIONS}
    for file in (*(Path(folder) / name for name in names), *Checkpoints(Path(folder) / CHECKPOINT).files()):
        if path.resolve() == file.resolve() or (path.is_file() and file.exists() and path.samefile(file)):
            raise ValueError(f"{path}: expected a file that is none of the run in {folder}; choose another --out")


def take_over(folder: Path, new: Path, config: dict[str, Any]) -> None:
    """Makes the run whose checkpoints lie in `new` that of the folder. At no moment do its parts mix with the earlier one's."""
    Checkpoints(folder / CHECKPOINT).take_away(1)
    for name in _LEFT:
        (folder / name).unlink(missing_ok=True)
    write_config(folder, config)
    for file in Checkpoints(new / CHECKPOINT).files():
        os.replace(file, folder / file.name)


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Writes the description of a run; ValueError when it holds what JSON cannot."""
    text = json.dumps({"treadle": __version__} | config, indent=2, allow_nan=False, ensure_ascii=False)
    write_atomic(folder / CONFIG, (text + "\n").encode())


def read_config(folder: str | PathLike[str]) -> dict[str, Any]:
    """The description of the run in a folder.

    Raises:
        FileNotFoundError: The folder has none.
        ValueError: It cannot be understood.
    """
    path = Path(folder) / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder}: expected a folder that `treadle train` made, got no {CONFIG}") from None
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, got {error}") from None
    if not isinstance(config, dict) or not {"options", "data", "model"} <= config.keys():
        raise ValueError(f"{path}: expected options, data and model, got another file")
    for section, wanted in (("options", _OPTIONS), ("model", _MODEL)):
        _expect(path, section, config[section], wanted)
        if config[section].keys() != wanted.keys():
            raise ValueError(f"{path}: expected {section} of {', '.join(wanted)}, got {', '.join(config[section])}")
    for name, least in LEAST.items():
        if config["options"][name] < least:
            raise ValueError(f"{path}: expected options.{name} of at least {least}, got {config['options'][name]}")
    _expect(path, "data", config["data"], _KINDS)
    recipe: dict[str, Any] = config["data"]
    table = _TABLE | (_TARGET if recipe.get("classes", []) is None else {})
    _expect(path, "data", recipe, table if recipe["kind"] == "csv" else _IMAGES)
    if recipe["classes"] is not None:
        _expect_list(path, "classes", recipe, max(config["model"]["num_classes"], 1), (str,))
    if recipe["kind"] == "csv":
        _expect_table(path, recipe)
    return config


def _expect(path: Path, section: str, value: Any, wanted: dict[str, Any]) -> None:
    """A section has its entries, of their types."""
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected {section} as an object, got {value!r:.100}")
    for name, kind in wanted.items():
        if name not in value:
            raise ValueError(f"{path}: expected {section}.{name}, got only {', '.join(value) or 'nothing'}")
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not _fits(value[name], kinds):
            names = " or ".join(repr(one) if isinstance(one, str) else one.__name__ for one in kinds)
            raise ValueError(f"{path}: expected {section}.{name} as {names}, got {value[name]!r:.100}")


def _fits(value: Any, kinds: tuple[Any, ...]) -> bool:
    """Whether a value is one of the choices, or of one of the types."""
    return any(
        value == kind if isinstance(kind, str) else isinstance(value, kind) and not isinstance(value, bool) for kind in kinds
    )


def _expect_list(path: Path, name: str, recipe: dict[str, Any], length: int, kinds: tuple[Any, ...]) -> None:
    values = recipe[name]
    if len(values) != length or not all(_fits(value, kinds) for value in values):
        what = "strings" if kinds == (str,) else "numbers"
        raise ValueError(f"{path}: expected data.{name} as {length} {what}, got {values!r:.100}")


def _expect_table(path: Path, recipe: dict[str, Any]) -> None:
    """The columns of a table become as many features as there are means and deviations."""
    try:
        schema = Schema.from_json(recipe["schema"])
    except ValueError as error:
        raise ValueError(f"{path}: expected data.schema as of a table, got another ({error})") from None
    width = sum(column.width() for column in schema.columns)
    if width != recipe["dim"] or schema.classes != recipe["classes"]:
        got = f"{width} features and classes {schema.classes!r:.100}"
        raise ValueError(f"{path}: expected a schema of {recipe['dim']} features and classes {recipe['classes']!r:.100}, got {got}")
    for name in ("mean", "std"):
        _expect_list(path, name, recipe, width, _NUMBER)


def load_model(folder: str | PathLike[str], config: dict[str, Any]) -> MLPResNet:
    """The trained model of a folder, in evaluation mode.

    Raises:
        FileNotFoundError: The run has not ended yet.
        ValueError: The file does not fit the description.
    """
    path = Path(folder) / MODEL
    if not path.exists():
        raise FileNotFoundError(f"{folder}: expected {MODEL}, got an unfinished run; finish it with --resume")
    model = MLPResNet(**config["model"])
    model.load_state_dict(load(path))
    model.eval()
    return model
