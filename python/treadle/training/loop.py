"""Training: `fit`.

Invariant: an epoch's end is the only place where a run's state is saved, and all of it is: a run that was interrupted
and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal

from treadle._core import Generator, clip_grad_norm, default_generator
from treadle.nn import Module
from treadle.optim import LRScheduler, OneCycleLR, Optimizer, ReduceLROnPlateau
from treadle.training.checkpoint import load_checkpoint, save_checkpoint
from treadle.training.evaluation import Loss, Meter, measure
from treadle.training.history import History, Value
from treadle.training.metrics import Metric
from treadle.training.progress import EpochProgress
from treadle.training.stopping import EarlyStopping

__all__ = ["fit"]


def fit(
    model: Module,
    train: Iterable[Any],
    valid: Iterable[Any] | None = None,
    *,
    loss: Loss,
    optimizer: Optimizer,
    epochs: int,
    scheduler: LRScheduler | ReduceLROnPlateau | None = None,
    metrics: Mapping[str, Metric] | None = None,
    progress: bool = True,
    early_stopping: EarlyStopping | None = None,
    checkpoint: str | PathLike[str] | None = None,
    resume: bool = False,
    clip_norm: float | None = None,
    step_scheduler: Literal["batch", "epoch"] | None = None,
) -> History:
    """Trains a model.

    Args:
        model: The model; it ends in training mode.
        train: Batches (inputs, targets), such as a `DataLoader`; gone through once per epoch.
        valid: Batches to evaluate after each epoch; None: no validation.
        loss: Takes outputs and targets, gives a scalar: a loss module or function that averages over the batch.
        optimizer: Holds the parameters to train.
        epochs: How many epochs the run has in all, those before a resume included.
        scheduler: Sets the learning rate.
        metrics: Names and measures; None: the accuracy when targets are class indices, otherwise nothing.
        progress: Show a line per epoch on stderr, and while it runs a bar if that is a terminal.
        early_stopping: Ends the run early.
        checkpoint: A file that holds the whole state of the run, replaced after each epoch. There is one from the
            start, so a run interrupted at any moment leaves one that can be resumed.
        resume: Continue from `checkpoint`. Model, optimizer, scheduler, data and options must be made as for the first
            run; the result then is the same, bit for bit, as without the interruption.
        clip_norm: Scale gradients down to this joint norm before each step.
        step_scheduler: Whether the scheduler steps after each batch or each epoch; None: each batch for `OneCycleLR`,
            each epoch for the others.

    Returns:
        The history, one row per epoch.

    Raises:
        ValueError: No epochs, no batches, an empty batch, resume without checkpoint, or an unknown step_scheduler.
        FileNotFoundError: There is nothing to resume.
        FloatingPointError: The loss became infinite or NaN; the step is not taken, and the checkpoint of the
            epoch before stays.

    Example:
        >>> train, valid = DataLoader(rows, 64, shuffle=True), DataLoader(held_out, 512)
        >>> adam = optim.Adam(model.parameters(), lr=1e-3)
        >>> history = fit(model, train, valid, loss=nn.CrossEntropyLoss(), optimizer=adam, epochs=10)
        >>> history["valid_accuracy"][-1]
    """
    if epochs < 1:
        raise ValueError(f"fit: expected at least 1 epoch, got {epochs}")
    if resume and checkpoint is None:
        raise ValueError("fit: expected the checkpoint to resume from, got None")
    usual = "batch" if isinstance(scheduler, OneCycleLR) else "epoch"
    if step_scheduler not in (None, "epoch") and (step_scheduler != "batch" or isinstance(scheduler, ReduceLROnPlateau)):
        raise ValueError(f"fit: expected step_scheduler 'epoch', or 'batch' unless on a plateau, got {step_scheduler!r}")
    per_batch = (step_scheduler or usual) == "batch"
    run = _Run(model, train, valid, loss, optimizer, scheduler, per_batch, metrics, early_stopping, clip_norm)
    if early_stopping:
        early_stopping.reset()
    if resume and checkpoint is not None:
        run.load(checkpoint)
    elif checkpoint is not None:
        run.save(checkpoint)
    while run.epoch < epochs and not (early_stopping and early_stopping.stopped):
        run.go_through(epochs, progress)
        if checkpoint is not None:
            run.save(checkpoint)
    if early_stopping:
        early_stopping.restore(model)
    return run.history


@dataclass(slots=True)
class _Run:
    """A run between two epochs: all that an epoch changes, and what it needs."""

    model: Module
    train: Iterable[Any]
    valid: Iterable[Any] | None
    loss: Loss
    optimizer: Optimizer
    scheduler: LRScheduler | ReduceLROnPlateau | None
    per_batch: bool
    metrics: Mapping[str, Metric] | None
    stopping: EarlyStopping | None
    clip_norm: float | None
    epoch: int = 0
    history: History = field(default_factory=History)

    def go_through(self, epochs: int, progress: bool) -> None:
        """Trains and evaluates one epoch and adds its row to the history."""
        start = time.perf_counter()
        rate = float(self.optimizer.param_groups[0]["lr"])
        line = EpochProgress(self.epoch + 1, epochs, _length(self.train), progress)
        try:
            trained = self._train(line)
            valued = measure(self.model, self.valid, self.loss, self.metrics) if self.valid is not None else {}
            line.finish(trained, valued)
        finally:
            line.close()
        self.epoch += 1
        row: dict[str, Value] = {"epoch": self.epoch}
        row |= {f"train_{name}": value for name, value in trained.items()}
        row |= {f"valid_{name}": valued.get(name) for name in trained}
        self.history.append(row | {"lr": rate, "seconds": time.perf_counter() - start})
        self._step_epoch(row)

    def _train(self, line: EpochProgress) -> dict[str, float]:
        """One pass over the training batches."""
        model, loss_of, optimizer = self.model, self.loss, self.optimizer
        clipped = [p for group in optimizer.param_groups for p in group["params"]] if self.clip_norm is not None else []
        after_batch: Callable[[], object] | None = self.scheduler.step if self.scheduler and self.per_batch else None  # type: ignore[assignment]
        meter = Meter(self.metrics)
        model.train()
        for inputs, targets in self.train:
            outputs = model(inputs)
            loss = loss_of(outputs, targets)
            value = float(loss.item())
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"fit: expected a finite loss, got {value} in epoch {self.epoch + 1}; lower the learning rate"
                )
            optimizer.zero_grad()
            loss.backward()
            if self.clip_norm is not None:
                clip_grad_norm(clipped, self.clip_norm)
            optimizer.step()
            if after_batch is not None:
                after_batch()
            meter.update(value, outputs, targets)
            if line.advance():
                line.show(meter.compute())
        return meter.compute()

    def _step_epoch(self, row: Mapping[str, Value]) -> None:
        if isinstance(self.scheduler, ReduceLROnPlateau):
            watched = row["valid_loss"] if self.valid is not None else row["train_loss"]
            self.scheduler.step(float(watched or 0.0))
        elif self.scheduler is not None and not self.per_batch:
            self.scheduler.step()
        if self.stopping is not None:
            self.stopping.update(row, self.model)

    def _generators(self) -> dict[str, Generator]:
        """The sources of chance: the default generator, and the loader's own if it has one."""
        own = getattr(self.train, "generator", None)
        return {"default": default_generator()} | ({"train": own} if isinstance(own, Generator) else {})

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the whole state."""
        state = {
            "epoch": self.epoch,
            "history": self.history.rows,
            "generators": {name: tuple(generator.get_state()) for name, generator in self._generators().items()},
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler is not None else None,
            "stopping": self.stopping.state_dict() if self.stopping is not None else None,
        }
        save_checkpoint(path, state)

    def load(self, path: str | PathLike[str]) -> None:
        """Takes over the whole state; ValueError when the run was made with other parts."""
        state = load_checkpoint(path)
        generators = self._generators()
        parts = {"scheduler": self.scheduler, "stopping": self.stopping}
        for name, part in parts.items():
            if (state[name] is None) != (part is None):
                here, there = ("no" if p is None else "a" for p in (part, state[name]))
                raise ValueError(f"fit: expected {there} {name} as in {path}, got {here} {name}")
        if set(state["generators"]) != set(generators):
            raise ValueError(f"fit: expected generators {sorted(state['generators'])}, got {sorted(generators)}")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.stopping is not None:
            self.stopping.load_state_dict(state["stopping"])
        for name, generator in generators.items():
            generator.set_state(state["generators"][name])
        self.epoch, self.history = state["epoch"], History(state["history"])


def _length(batches: Iterable[Any]) -> int | None:
    """How many batches there are, when that can be known."""
    try:
        return len(batches)  # type: ignore[arg-type]
    except TypeError:
        return None
