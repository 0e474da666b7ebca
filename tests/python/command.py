"""What tests of the command `treadle` share: a quick run, and what is in the folder that it leaves."""

from __future__ import annotations

import csv
from pathlib import Path

QUICK = ["--epochs", "3", "--hidden", "16", "--blocks", "1", "--batch-size", "64"]
CHECKPOINTS = {"checkpoint.safetensors", "checkpoint.1.safetensors"}
FILES = CHECKPOINTS | {"config.json", "confusion.png", "curves.png", "history.csv", "model.safetensors"}


def column(path: Path, name: str) -> list[str]:
    with path.open(newline="") as file:
        return [row[name] for row in csv.DictReader(file)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
