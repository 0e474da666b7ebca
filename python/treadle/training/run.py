"""A training run: all that it changes, saved and loaded whole.

Invariant: between two steps everything that decides what comes next is in `Run.state`, so that a run that was interrupted
at any moment and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from treadle._core import Tensor
from treadle.checks import at_least
from treadle.nn import Module
from treadle.optim import LRScheduler, ReduceLROnPlateau
from treadle.training.beside import Before, Held
from treadle.training.checks import length, pair
from treadle.training.evaluation import Meter, measure
from treadle.training.history import History, Value, packed, unpacked
from treadle.training.kept import Kept
from treadle.training.metrics import Metric
from treadle.training.progress import EpochProgress
from treadle.training.reach import Reach
from treadle.training.saved import Checkpoints
from treadle.training.steps import Steps
from treadle.training.stopping import EarlyStopping

__all__ = ["Run"]

# What of the epoch under way is counted.
_WITHIN = ("batch", "skipped", "seconds", "rate")


class Run:
    """A run, from its first epoch or from a saved state.

    Args:
        steps: Takes the steps.
        train: Batches to train on.
        valid: Batches to evaluate after each epoch.
        scheduler: Stepped after each epoch.
        metrics: Names and measures.
        stopping: Told each epoch's row.
        saved: Where the state is saved; None: nowhere.
        every: Save after every so many steps.
        callbacks: Called after each epoch; one that answers True ends the run.

    Raises:
        ValueError: `every` below 1, or nowhere to save.
    """

    def __init__(
        self,
        steps: Steps,
        train: Iterable[Any],
        valid: Iterable[Any] | None,
        scheduler: LRScheduler | ReduceLROnPlateau | None,
        metrics: Mapping[str, Metric] | None,
        stopping: EarlyStopping | None,
        saved: Checkpoints | None,
        every: int | None,
        callbacks: Sequence[Callable[[History, Module], object]],
    ) -> None:
        if every is not None and at_least("fit", "checkpoint_every", every, 1) and saved is None:
            raise ValueError(f"fit: expected a checkpoint to write every {every} steps, got None")
        self.steps, self.train, self.valid, self.metrics = steps, train, valid, metrics
        self.scheduler, self.stopping, self.saved, self.every = scheduler, stopping, saved, every
        self.callbacks = callbacks
        self.epoch, self.history, self._ended = 0, History(), False
        # Of the epoch under way:
        self.batch, self.skipped, self.seconds, self.rate = 0, 0, 0.0, 0.0
        self.meter = Meter(metrics, steps.loss)
        self._interrupted, self._keeps = False, True
        if saved is not None:
            parts = {"train": train, "valid": valid, "loss": steps.loss, "metrics": metrics, "callbacks": callbacks}
            self._reach = Reach(steps.model, parts)
            self._held, self._kept = Held(self._reach, steps.optimizer), Kept(self._elsewhere)
            self._begun, self._made = self._held.states(), self._kinds()
            self._metered()  # which says what it cannot keep

    @property
    def ended(self) -> bool:
        """Whether early stopping or a callback has ended the run."""
        return self._ended or (self.stopping is not None and self.stopping.stopped)

    def go_through(self, epochs: int, progress: bool) -> bool:
        """Trains and evaluates what is left of an epoch and adds its row to the history; False: the run has to end."""
        start = time.perf_counter() - self.seconds
        if self.batch == 0:
            self.rate = float(self.steps.optimizer.param_groups[0]["lr"])
        line = EpochProgress(self.epoch + 1, epochs, length(self.train) if progress else None, progress)
        try:
            if not self._train(line, start):
                return False
            self._say_skipped()
            trained = self.meter.compute()
            self._check_weights()
            valued = {}
            if self.valid is not None:
                watched = self._watched(self.valid, None if self.saved is None else self._moving())
                valued = measure("fit", self.steps.model, watched, self.steps.loss, self.metrics)
            line.finish(trained, valued)
        finally:
            line.close()
        self.epoch, self.batch, self.skipped, self.seconds = self.epoch + 1, 0, 0, 0.0
        row: dict[str, Value] = {"epoch": self.epoch}
        row |= {f"train_{name}": value for name, value in trained.items()}
        row |= {f"valid_{name}": valued.get(name) for name in trained}
        self.history.append(row | {"lr": self.rate, "seconds": time.perf_counter() - start})
        self._step_epoch(row)
        return True

    def _train(self, line: EpochProgress, start: float) -> bool:
        """The training batches that are left; False: a bad one ends the run."""
        if not self.steps.model.training:
            self.steps.model.train()
        for batch in self._batches(line):
            inputs, targets = pair("fit", batch)
            try:
                taken = self.steps.take(inputs, targets)
            except FloatingPointError as error:
                raise self._placed(error) from None
            if taken is not None:
                self.meter.update(taken[0], taken[1], targets)
            elif self.steps.on_nonfinite == "stop":
                where = f"epoch {self.epoch + 1}, batch {self.batch + 1}"
                warnings.warn(f"fit: stopped before a loss or gradient that is not finite in {where}", RuntimeWarning, stacklevel=4)
                return False
            else:
                self.skipped += 1
            self.batch += 1
            self.seconds = time.perf_counter() - start
            if self._interrupted or (self.every is not None and self.batch % self.every == 0):
                self.save()
            self._answer()
            if line.advance() and self.skipped < self.batch:
                line.show(self.meter.compute())
        return True

    def _batches(self, line: EpochProgress) -> Iterator[Any]:
        """The batches of the epoch under way, but for those that were trained on before."""
        if self.batch:
            return self._left(line)
        self.meter.reset()
        if self.saved is not None:
            self._begun = self._held.states()
        return iter(self.train)

    def _left(self, line: EpochProgress) -> Iterator[Any]:
        """The batches of the epoch that was begun once more, which changes nothing but the place among them."""
        before = Before(self._reach)
        self._held.set_states(self._begun)
        batches = iter(self.train)
        for _ in range(self.batch):
            if next(batches, None) is None:
                raise ValueError(f"fit: expected at least {self.batch} batches as in the run to resume, got fewer")
            line.advance()
        before.restore()
        return batches

    def _step_epoch(self, row: Mapping[str, Value]) -> None:
        if isinstance(self.scheduler, ReduceLROnPlateau):
            watched = row["valid_loss"] if self.valid is not None else row["train_loss"]
            self.scheduler.step(float(watched or 0.0))
        elif self.scheduler is not None:
            self.scheduler.step()
        if self.stopping is not None:
            self.stopping.update(row, self.steps.model)
        answers = [callback(self.history, self.steps.model) for callback in self.callbacks]
        self._ended = any(map(_says_true, answers))

    def _say_skipped(self) -> None:
        if self.skipped and self.skipped == self.batch:
            what = f"in epoch {self.epoch + 1}, got none in {self.batch} batches; scale the inputs or lower the learning rate"
            raise FloatingPointError(f"fit: expected a batch with a finite loss and gradients {what}")
        if self.skipped:
            what = f"{self.skipped} of {self.batch} batches of epoch {self.epoch + 1}"
            warnings.warn(f"fit: skipped {what}: loss or gradients were not finite", RuntimeWarning, stacklevel=5)

    def _check_weights(self) -> None:
        try:
            self.steps.check_weights()
        except FloatingPointError as error:
            raise self._placed(error) from None

    def _placed(self, error: FloatingPointError) -> FloatingPointError:
        return FloatingPointError(f"fit: {error} in epoch {self.epoch + 1}; scale the inputs or lower the learning rate")

    # Saving and loading

    def _parts(self) -> dict[str, Any]:
        return {"scheduler": self.steps.scheduler or self.scheduler, "stopping": self.stopping}

    def _kinds(self) -> dict[str, Any]:
        """The classes of the parts, the optimizer's options but for the rate, which schedules set, and the names of the metrics."""
        optimizer = self.steps.optimizer
        kinds = {name: type(part).__name__ for name, part in ({"optimizer": optimizer} | self._parts()).items()}
        groups = [{name: group[name] for name in optimizer.defaults if name != "lr"} for group in optimizer.param_groups]
        return kinds | {"options of the optimizer": groups, "metrics": None if self.metrics is None else list(self.metrics)}

    def _moving(self) -> dict[str, Any]:
        """What validation moves, too, or may."""
        return {"meter": self._metered() if self.batch else None} | self._held.state_dict()

    def _metered(self) -> dict[str, Any] | None:
        """What the metrics of the epoch under way have seen; None where a checkpoint cannot hold it."""
        try:
            return self.meter.state_dict(self._kept)
        except TypeError as error:
            if self._keeps:
                how = "give it state_dict and load_state_dict"
                warnings.warn(f"fit: no checkpoint is written inside an epoch: {error}; {how}", RuntimeWarning, stacklevel=4)
            self._keeps = False
            return None

    def _elsewhere(self) -> set[int]:
        """The ids of what the metrics may hold and the run has or keeps without them."""
        data = [part for loader in (self.train, self.valid) for part in (loader, getattr(loader, "dataset", None))]
        return self._held.ids() | set(map(id, data))

    def save(self, moving: Mapping[str, Any] | None = None) -> None:
        """Saves the state, if it is to be saved and the weights are finite; `moving` as it was, if it has moved since."""
        if self.saved is None:
            return
        self._check_weights()
        moving = self._moving() if moving is None else moving
        if self.batch and moving["meter"] is None:
            return  # the checkpoint before begins the epoch anew
        within = {name: getattr(self, name) for name in _WITHIN} | {"begun": self._begun}
        state = {"epoch": self.epoch, "history": packed(self.history), "within": within, "ended": self._ended, "made": self._made}
        state |= {name: None if part is None else part.state_dict() for name, part in self._parts().items()}
        self.saved.write(state | {"optimizer": self.steps.optimizer.state_dict(), **moving})

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes over what `save` saved; ValueError, and nothing was changed, when the run was made with other parts."""
        for name, part in self._parts().items():
            if (state[name] is None) != (part is None):
                here, there = ("no" if p is None else "a" for p in (part, state[name]))
                raise ValueError(f"fit: expected {there} {name} as in the checkpoint, got {here} {name}")
        for name, there in state["made"].items():
            if (here := self._made[name]) != there:
                raise ValueError(f"fit: expected {name} {there} as in the checkpoint, got {here}")
        self._held.leave_out(state)
        within = state["within"]
        loaded: list[Any] = [(self._held, state)]
        loaded += [(part, state[name]) for name, part in self._parts().items() if part is not None]
        # After the schedule, which sets rates by its own count: those that a callback set are the optimizer's.
        loaded.append((self.steps.optimizer, state["optimizer"]))
        before = [(owner, owner.state_dict()) for owner, _ in loaded]
        try:
            self.steps.model.train()
            for owner, part in loaded:
                owner.load_state_dict(part)
            if within["batch"]:
                self.meter.load_state_dict(state["meter"])
        except Exception:
            for owner, part in before:
                owner.load_state_dict(part)
            raise
        for name in _WITHIN:
            setattr(self, name, within[name])
        self._begun = within["begun"]
        self.epoch, self.history, self._ended = state["epoch"], unpacked(state["history"]), state["ended"]

    # Ctrl-C

    @contextmanager
    def interruptions(self) -> Iterator[None]:
        """Inside, the first Ctrl-C waits for the end of the step where the state is saved; the next does not wait."""
        ours = self.saved is not None and threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGINT)
        if not ours or before is not signal.default_int_handler:
            yield
            return

        def ask(*_: object) -> None:
            self._interrupted = True
            signal.signal(signal.SIGINT, before)

        signal.signal(signal.SIGINT, ask)
        try:
            yield
            self._answer()
        finally:
            signal.signal(signal.SIGINT, before)

    def _answer(self) -> None:
        if self._interrupted:
            raise KeyboardInterrupt

    def _watched(self, batches: Iterable[Any], moving: Mapping[str, Any] | None) -> Iterator[Any]:
        """The batches, with an ear for Ctrl-C between them; it saves what was before the first."""
        for batch in batches:
            if self._interrupted:
                self.save(moving)
            self._answer()
            yield batch


def _says_true(answer: object) -> bool:
    """Whether a callback's answer is a single True, of Python, NumPy or a Tensor."""
    if not isinstance(answer, bool | np.bool_ | np.ndarray | Tensor):
        return False
    array = np.asarray(answer)
    return array.dtype == bool and array.shape == () and bool(array)
