"""`treadle train`: from data to a folder with a model.

Invariants: the same options and seed give the same bytes in `model.safetensors`, at any number of threads, interrupted
and resumed or not; a run that is refused, or that fails in its first epoch, leaves an earlier one as it was.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle import optim, temporary
from treadle._core import Generator, manual_seed, set_num_threads
from treadle.cli import folder
from treadle.cli.data import Prepared, Recipe, in_units, loader, prepare
from treadle.cli.options import DECAYS, DEFAULTS, FREE, RATES
from treadle.models import MLPResNet
from treadle.nn import CrossEntropyLoss, MSELoss
from treadle.serialization import naming, save
from treadle.training import (
    R2,
    Accuracy,
    History,
    Metric,
    confusion_matrix,
    fit,
    load_checkpoint,
    mae,
    plots,
    predict,
)
from treadle.training.checkpoint import run_of, write_checkpoint
from treadle.training.saved import Checkpoints

__all__ = ["run"]

_EVALUATION_ROWS = 1024  # rows per step where nothing is learned


def run(typed: argparse.Namespace) -> int:
    """Trains, and writes the folder; returns the exit code."""
    given = {name: value for name, value in vars(typed).items() if name in DEFAULTS}
    resume, quiet = getattr(typed, "resume", False), getattr(typed, "quiet", False)
    options, begun = _continued(given) if resume else (DEFAULTS | given, None)
    options["lr"] = options["lr"] or RATES[options["optimizer"]]
    if options["weight_decay"] is None:
        options["weight_decay"] = DECAYS[options["optimizer"]]
    if options["threads"] is not None:
        set_num_threads(options["threads"])
    out = Path(options["out"])
    temporary.sweep(out, temporary.ASIDE)
    replaces = not resume and folder.holds_run(out, options["data"])
    job = _Job(options, prepare(options["data"], options["target"], options["seed"], begun), out)
    advice = f"the run before is still in {out}"
    try:
        if replaces:
            job.replace(not quiet)
        else:
            out.mkdir(parents=True, exist_ok=True)
            folder.write_config(out, job.config())
        advice = f"go on with: treadle train --resume --out {out}"
        history = job.train(out, resume or replaces, not quiet)
    except KeyboardInterrupt:
        print(f"treadle: interrupted; {advice}", file=sys.stderr)
        return 130
    job.finish(history, quiet)
    return 0


def _continued(given: dict[str, Any]) -> tuple[dict[str, Any], Recipe]:
    """Options and recipe of the run to continue; ValueError when what was typed contradicts them."""
    out = given.get("out", DEFAULTS["out"])
    config = folder.read_config(out)
    if not any(Checkpoints(Path(out) / folder.CHECKPOINT).files()):
        raise FileNotFoundError(f"{out}: expected a run to resume, got no {folder.CHECKPOINT}")
    # Before there were digests, tables were standardised in float32: what goes on now would not be the same run.
    if "sha256" not in config["data"]:
        version = config.get("treadle", "unknown")
        raise ValueError(f"resume: expected a run that knows its data by a digest, got {out} of version {version}; train anew")
    before: dict[str, Any] = DEFAULTS | config["options"]
    for name, value in given.items():
        free = name in FREE and not (name == "epochs" and before["schedule"] != "none")
        if not free and value != before[name]:
            option = "--" + name.replace("_", "-")
            hint = f"; the {before['schedule']} schedule depends on it" if name == "epochs" else ""
            raise ValueError(f"resume: expected {option} {before[name]} as in {out}, got {value}{hint}")
    return before | given, config["data"]


class _Job:
    """One run: its options, its data and the model that they make."""

    def __init__(self, options: dict[str, Any], data: Prepared, out: Path) -> None:
        self.options, self.data, self.out = options, data, out
        self.classes: list[str] | None = data.recipe["classes"]  # None: a regression
        self.test = loader(data.test, _EVALUATION_ROWS)
        self.answers = np.asarray(data.test.answers)
        manual_seed(options["seed"])
        self.model = MLPResNet(**self.shape())

    def shape(self) -> dict[str, Any]:
        """The arguments of the model."""
        return {
            "dim": self.data.recipe["dim"],
            "hidden_dim": self.options["hidden"],
            "num_blocks": self.options["blocks"],
            "num_classes": len(self.classes) if self.classes else 1,
            "drop_prob": self.options["dropout"],
        }

    def config(self) -> dict[str, Any]:
        """What `config.json` says; the path of the data is absolute, so that the run can be resumed from anywhere."""
        kept = {name: value for name, value in self.options.items() if name not in ("out", "threads")}
        if self.data.recipe["kind"] != "digits":
            kept["data"] = str(Path(kept["data"]).absolute())
        return {"options": kept, "data": self.data.recipe, "model": self.shape()}

    def replace(self, progress: bool) -> None:
        """Trains for an epoch aside, then puts this run in the place of the one in the folder."""
        with naming(self.out), temporary.aside(self.out) as aside:
            self.train(aside, False, progress, epochs=1)
            first = aside / folder.CHECKPOINT
            write_checkpoint(first, load_checkpoint(first) | {"ended": False}, run_of(first) or "")  # it goes on in its new place
            folder.take_over(self.out, aside, self.config())

    def train(self, place: Path, resume: bool, progress: bool, epochs: int | None = None) -> History:
        """Trains the model with checkpoints in a folder, to the end or for a number of epochs."""
        options = self.options
        generator = Generator(options["seed"])
        train = loader(self.data.train, options["batch_size"], generator)
        optimizer = _optimizer(self.model, options)
        metrics: dict[str, Metric] = {"accuracy": Accuracy()} if self.classes else {"r2": R2()}
        return fit(
            self.model,
            train,
            self.test,
            loss=CrossEntropyLoss() if self.classes else MSELoss(),
            optimizer=optimizer,
            epochs=options["epochs"],
            scheduler=_scheduler(optimizer, options, len(train)),
            step_scheduler="epoch" if options["schedule"] == "step" else "batch",
            metrics=metrics,
            progress=progress,
            checkpoint=place / folder.CHECKPOINT,
            resume=resume,
            callbacks=[lambda history, _: len(history) == epochs],
        )

    def finish(self, history: History, quiet: bool) -> None:
        """Writes model, history and pictures, and reports."""
        model = self.out / folder.MODEL
        before = model.read_bytes() if model.exists() else None
        save(model, self.model.state_dict())
        if model.read_bytes() != before:
            (self.out / folder.PREDICTIONS).unlink(missing_ok=True)
        history.to_csv(self.out / folder.HISTORY)
        outputs = predict(self.model, self.test)
        try:
            self._draw(history, outputs)
        except ImportError as error:
            print(f"treadle: no pictures ({error})", file=sys.stderr)
        if not quiet:
            self._report(history, outputs)

    def _draw(self, history: History, outputs: npt.NDArray[Any]) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph", UserWarning)  # no font has all characters that a class may have
            plots.curves(history).savefig(self.out / folder.CURVES)
            if self.classes:
                counts = confusion_matrix(outputs, self.answers, len(self.classes))
                plots.confusion(counts, self.classes).savefig(self.out / folder.CONFUSION)

    def _report(self, history: History, outputs: npt.NDArray[Any]) -> None:
        last = history.rows[-1]
        rows = len(self.answers)
        if self.classes:
            right = round(float(last["valid_accuracy"] or 0.0) * rows)
            print(f"test accuracy {right / rows:.2%} ({right} of {rows}), loss {last['valid_loss']:.4f}")
        else:
            error = mae(in_units(self.data.recipe, outputs), self.answers)
            print(f"test R² {last['valid_r2']:.4f}, mean absolute error {error:.4g} ({rows} rows)")
        seconds = sum(float(value or 0.0) for value in history["seconds"])
        weights = sum(parameter.numel() for parameter in self.model.parameters())
        print(
            f"{len(history)} epochs in {seconds:.2f} s ({seconds / len(history):.3f} s each), "
            f"{len(self.data.train)} rows, {weights:,} parameters"
        )
        names = (folder.MODEL, folder.CONFIG, folder.HISTORY, folder.CURVES, folder.CONFUSION)
        print(f"{self.options['out']}: {', '.join(name for name in names if (self.out / name).exists())}")


def _optimizer(model: MLPResNet, options: Mapping[str, Any]) -> optim.Optimizer:
    name = options["optimizer"]
    settings = {"lr": options["lr"], "weight_decay": options["weight_decay"]}
    if name == "sgd":
        return optim.SGD(model.parameters(), momentum=0.9, nesterov=True, **settings)
    kinds: dict[str, Any] = {"adam": optim.Adam, "adamw": optim.AdamW, "rmsprop": optim.RMSprop}
    made: optim.Optimizer = kinds[name](model.parameters(), **settings)
    return made


def _scheduler(optimizer: optim.Optimizer, options: Mapping[str, Any], batches: int) -> optim.LRScheduler | None:
    """The learning-rate schedule: over the batches of the whole run, or for "step" a tenth after each third of it."""
    name, epochs = options["schedule"], options["epochs"]
    if name == "cosine":
        return optim.CosineAnnealingLR(optimizer, T_max=epochs * batches)
    if name == "step":
        return optim.StepLR(optimizer, step_size=max(1, -(-epochs // 3)), gamma=0.1)
    if name == "onecycle":
        return optim.OneCycleLR(optimizer, max_lr=optimizer.param_groups[0]["lr"], total_steps=epochs * batches)
    return None
