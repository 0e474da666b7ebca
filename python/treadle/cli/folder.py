"""The folder a run leaves: which files it has, and the model that is in it.

Invariant: `config.json` and `model.safetensors` together say all there is to know to use the model; nothing in them
depends on the machine, the time or the number of threads.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

from treadle._core import __version__
from treadle.models import MLPResNet
from treadle.serialization import load, write_atomic

__all__ = [
    "CHECKPOINT",
    "CONFIG",
    "CONFUSION",
    "CURVES",
    "HISTORY",
    "MODEL",
    "load_model",
    "read_config",
    "write_config",
]

MODEL, CONFIG, HISTORY = "model.safetensors", "config.json", "history.csv"
CURVES, CONFUSION, CHECKPOINT = "curves.png", "confusion.png", "checkpoint.safetensors"


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
    return config


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
