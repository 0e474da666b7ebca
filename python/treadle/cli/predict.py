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
from treadle.cli.data import Rows, in_units, loader, rows_for
from treadle.serialization import write_atomic
from treadle.training import accuracy, mae, predict, r2

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Predicts, writes a CSV and reports; returns the exit code."""
    if options.threads is not None:
        set_num_threads(options.threads)
    out = options.out or str(Path(options.model) / folder.PREDICTIONS)
    if out != "-":
        folder.keep(options.data, Path(out))
        folder.keep_run(options.model, Path(out))
    elif sys.stdout is None:
        raise ValueError("--out -: expected a stdout to write to, got a closed one")
    config = folder.read_config(options.model)
    model = folder.load_model(options.model, config)
    recipe = config["data"]
    rows = rows_for(recipe, options.data, options.part, config["options"]["seed"])
    outputs = predict(model, loader(rows, 1024))
    if not recipe["classes"]:
        outputs = in_units(recipe, outputs)
    text = _table(rows, outputs, recipe["classes"])
    if out == "-":
        _to_stdout(text)
    else:
        write_atomic(out, text.encode())
    if not options.quiet:
        said = f"{len(rows)} predictions in {out}" if out != "-" else ""
        for line in (_judgement(outputs, rows.answers, recipe["classes"]), said):
            if line:
                print(line, file=sys.stderr if out == "-" else sys.stdout)
    return 0


def _table(rows: Rows, outputs: npt.NDArray[Any], classes: list[str] | None) -> str:
    """The CSV: row number, prediction, its probability in a classification, and the answer where it is known."""
    columns = {"row": rows.numbers.tolist()}
    if classes:
        shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        share = shifted.max(axis=1) / shifted.sum(axis=1)
        columns["prediction"] = [classes[index] for index in outputs.argmax(axis=1)]
        columns["probability"] = [f"{value:.4f}" for value in share]
    else:
        columns["prediction"] = [_exact(value) for value in outputs.tolist()]
    if rows.answers is not None:
        columns["answer"] = [classes[value] if classes else _exact(value) for value in rows.answers.tolist()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _to_stdout(text: str) -> None:
    """Writes text in UTF-8, as files have it, whatever the encoding of stdout."""
    sys.stdout.flush()
    if hasattr(sys.stdout, "buffer"):
        sys.stdout.buffer.write(text.encode())
    else:  # a stream of the calling program's, of text
        sys.stdout.write(text)
    sys.stdout.flush()


def _exact(value: float) -> str:
    """As few digits as give the same number again."""
    return repr(value).removesuffix(".0")


def _judgement(outputs: npt.NDArray[Any], answers: npt.NDArray[Any] | None, classes: list[str] | None) -> str:
    """How good the predictions are, in one line; nothing when the answers are not known."""
    if answers is None:
        return ""
    if classes:
        share = accuracy(outputs, answers)
        return f"accuracy {share:.2%} ({round(share * len(answers))} of {len(answers)})"
    return f"R² {r2(outputs, answers):.4f}, mean absolute error {mae(outputs, answers):.4g} ({len(answers)} rows)"
