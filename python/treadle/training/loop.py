"""Training: `fit`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal

from treadle.checks import at_least
from treadle.nn import Module
from treadle.optim import LRScheduler, OneCycleLR, Optimizer, ReduceLROnPlateau
from treadle.training.checks import check_batches, check_callbacks, check_loss, check_metrics, check_optimizer, check_parts
from treadle.training.evaluation import Loss
from treadle.training.history import History
from treadle.training.metrics import Metric
from treadle.training.run import Run
from treadle.training.saved import Checkpoints
from treadle.training.steps import NonFinite, Steps
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
    checkpoint_every: int | None = None,
    keep_last: int = 2,
    on_checkpoint_error: Literal["raise", "warn"] = "raise",
    on_nonfinite: NonFinite = "raise",
    callbacks: Sequence[Callable[[History, Module], object]] = (),
) -> History:
    """Trains a model.

    Args:
        model: The model; it ends in training mode.
        train: Batches (inputs, targets), such as a `DataLoader`; gone through once per epoch, so no iterator unless there is one.
        valid: Batches to evaluate after each epoch; None: no validation.
        loss: Takes outputs and targets, gives a scalar: a loss module or function that averages over the batch.
        optimizer: Holds the parameters to train; a RuntimeWarning names those that require grad and are not among them.
        epochs: How many epochs the run has in all, those before a resume included.
        scheduler: Sets the learning rate.
        metrics: Names and measures; None: the accuracy when targets are class indices, or the loss is
            `BCEWithLogitsLoss` of one output; otherwise nothing. None is called "loss".
        progress: Show a line per epoch on stderr, and while it runs a bar if that is a terminal.
        early_stopping: Ends the run early.
        checkpoint: A file that holds the whole state of the run, replaced after each epoch. A new run takes the place
            of checkpoints that an earlier one left under these names, and touches no other file or run's. There is one from the
            start, so a run interrupted at any moment leaves one that can be resumed. Ctrl-C ends the step, writes a
            checkpoint and raises KeyboardInterrupt; a second one raises it at once.
        resume: Continue from `checkpoint`, or, when that is damaged, from the newest before it that is whole; a
            RuntimeWarning says so. Model, optimizer, scheduler, data and options must be made as for the first run; the
            result then is the same, bit for bit, as without the interruption. A RuntimeWarning names generators and modules that
            are there beyond those of the first run, and stay as they are.
        clip_norm: Scale gradients down to this joint norm before each step.
        step_scheduler: Whether the scheduler steps after each batch or each epoch; None: each batch for `OneCycleLR`,
            each epoch for the others.
        checkpoint_every: Write a checkpoint after every so many steps as well; None: after epochs only.
        keep_last: How many checkpoints to keep: those before `run.safetensors` are `run.1.safetensors` and so on.
        on_checkpoint_error: Whether a checkpoint that cannot be written, as on a full disk, ends the run with its
            OSError ("raise") or is left out with a RuntimeWarning ("warn"). Those before it stay either way.
        on_nonfinite: What to do about a batch with an infinite or NaN loss: raise FloatingPointError ("raise"); leave
            weights, optimizer, and the buffers and generators of model and loss as they were before it and go on ("skip") or
            end the run ("stop"), with a RuntimeWarning. "skip" and "stop" look at the gradients of each step, too; "raise"
            looks at the weights after each epoch and before each checkpoint, so that no bad one replaces a good one.
        callbacks: Called after each epoch, before its checkpoint, with the history and the model; one that answers True ends
            the run for good: resumed, it does not train on.

    Returns:
        The history, one row per epoch.

    Raises:
        TypeError: Metrics that are no dict of measures, a loss that is a class or cannot be called, callbacks that are no list
            of functions of two arguments, or a model, optimizer, scheduler or early_stopping of another type.
        ValueError: No epochs, no batches, an iterator for several epochs, an empty batch or one that is no pair; a loss that is not
            one number, a metric of its name, an optimizer of none of the parameters, a scheduler of another one, or clip_norm below
            0; resume without checkpoint or from one of a run with other parts, an unknown step_scheduler, on_nonfinite
            or on_checkpoint_error, early stopping by a column that there will not be, checkpoint_every or keep_last
            below 1, or another file under the name of a checkpoint.
        RuntimeError: Another schedule took over the optimizer after this one.
        FileNotFoundError: There is nothing to resume.
        SerializationError: No checkpoint is whole. It is a ValueError.
        FloatingPointError: The loss or a weight became infinite or NaN, or every batch of an epoch was skipped; the
            checkpoints before stay.
        OSError: A checkpoint cannot be written.

    Example:
        >>> train, valid = DataLoader(rows, 64, shuffle=True), DataLoader(held_out, 512)
        >>> adam = optim.Adam(model.parameters(), lr=1e-3)
        >>> history = fit(model, train, valid, loss=nn.CrossEntropyLoss(), optimizer=adam, epochs=10)
        >>> history["valid_accuracy"][-1]
    """
    epochs = at_least("fit", "epochs", epochs, 1)
    if resume and checkpoint is None:
        raise ValueError("fit: expected the checkpoint to resume from, got None")
    parts = {"train": train} if valid is None else {"train": train, "valid": valid}
    for data in parts.values():
        check_batches("fit", data, times=epochs)
    check_loss("fit", loss)
    check_metrics("fit", metrics)
    check_parts(model, optimizer, scheduler, early_stopping, clip_norm)
    callbacks = check_callbacks(callbacks)
    if early_stopping is not None and type(early_stopping).update is EarlyStopping.update:
        names = ["loss", *(("accuracy",) if metrics is None else metrics)]
        early_stopping.expect(["epoch"] + [f"{part}_{name}" for part in parts for name in names])
    check_optimizer(model, optimizer)
    per_batch = _per_batch(scheduler, step_scheduler)
    saved = Checkpoints(checkpoint, keep_last, on_checkpoint_error) if checkpoint is not None else None
    steps = Steps(model, loss, optimizer, scheduler if per_batch else None, clip_norm, on_nonfinite)
    run = Run(steps, train, valid, None if per_batch else scheduler, metrics, early_stopping, saved, checkpoint_every, callbacks)
    if early_stopping:
        early_stopping.reset()
    if resume and saved is not None:
        run.load(saved.newest())
    else:
        model.train()
        run.save()
    _go_through(run, epochs, progress)
    if early_stopping:
        early_stopping.restore(model)
    return run.history


def _per_batch(scheduler: LRScheduler | ReduceLROnPlateau | None, asked: str | None) -> bool:
    """Whether the scheduler steps after each batch."""
    if asked not in (None, "epoch") and (asked != "batch" or isinstance(scheduler, ReduceLROnPlateau)):
        raise ValueError(f"fit: expected step_scheduler 'epoch', or 'batch' unless on a plateau, got {asked!r}")
    return asked == "batch" or (asked is None and isinstance(scheduler, OneCycleLR))


def _go_through(run: Run, epochs: int, progress: bool) -> None:
    """The epochs that are left, until something ends the run."""
    with run.interruptions():
        while run.epoch < epochs and not run.ended and run.go_through(epochs, progress):
            run.save()
