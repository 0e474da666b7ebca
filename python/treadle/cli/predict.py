"""`treadle predict`: what a trained model makes of data.

Invariant: the folder of the run is all that is needed; data is scaled and encoded as it was for training.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle._core import set_num_threads
from treadle.cli import folder
from treadle.cli.data import loader, rows_for
from treadle.serialization import write_atomic
from treadle.training import accuracy, mae, predict, r2

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Predicts, writes a CSV and reports; returns the exit code."""
    if options.threads is not None:
        set_num_threads(options.threads)
    config = folder.read_config(options.model)
    model = folder.load_model(options.model, config)
    recipe = config["data"]
    rows = rows_for(recipe, options.data, options.part, config["options"]["seed"])
    outputs = predict(model, loader(rows, 1024))
    targets = rows.targets()
    out = options.out or str(Path(options.model) / folder.PREDICTIONS)
    text = _table(rows.numbers, outputs, targets, recipe)
    if out == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_atomic(out, text.encode())
    if not options.quiet:
        for line in (_judgement(outputs, targets, recipe), f"{len(rows)} predictions in {out}" if out != "-" else ""):
            if line:
                print(line, file=sys.stderr if out == "-" else sys.stdout)
    return 0


def _table(numbers: npt.NDArray[Any], outputs: npt.NDArray[Any], targets: npt.NDArray[Any] | None, recipe: dict[str, Any]) -> str:
    """The CSV: row number, prediction, its probability in a classification, and the answer where it is known."""
    classes, columns = recipe["classes"], {"row": numbers.tolist()}
    if classes:
        shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        share = shifted.max(axis=1) / shifted.sum(axis=1)
        columns["prediction"] = [classes[index] for index in outputs.argmax(axis=1)]
        columns["probability"] = [f"{value:.4f}" for value in share]
    else:
        columns["prediction"] = [f"{value:.7g}" for value in _unscaled(outputs, recipe)]
    if targets is not None:
        columns["answer"] = (
            [classes[index] for index in targets] if classes else [f"{value:.7g}" for value in _unscaled(targets, recipe)]
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _judgement(outputs: npt.NDArray[Any], targets: npt.NDArray[Any] | None, recipe: dict[str, Any]) -> str:
    """How good the predictions are, in one line; nothing when the answers are not known."""
    if targets is None:
        return ""
    if recipe["classes"]:
        share = accuracy(outputs, targets)
        return f"accuracy {share:.2%} ({round(share * len(targets))} of {len(targets)})"
    error = mae(outputs, targets) * recipe["target_std"]
    return f"R² {r2(outputs, targets):.4f}, mean absolute error {error:.4g} ({len(targets)} rows)"


def _unscaled(values: npt.NDArray[Any], recipe: dict[str, Any]) -> list[float]:
    scaled: list[float] = (values.reshape(-1).astype(np.float64) * recipe["target_std"] + recipe["target_mean"]).tolist()
    return scaled
