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
from treadle.nn.state import Snapshot
from treadle.optim import LRScheduler, ReduceLROnPlateau
from treadle.training.beside import Beside, Flags
from treadle.training.checks import length, pair
from treadle.training.evaluation import Meter, measure
from treadle.training.history import History, Value
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
        parts = {"train": train, "valid": valid, "loss": steps.loss, "metrics": metrics, "callbacks": callbacks}
        reach = None if saved is None else Reach(parts, steps.model)
        self._generators, beside = (reach.generators, reach.modules) if reach is not None else ({}, {})
        self._modules = {"model": steps.model} | beside
        self._beside, self._flags = Beside(steps.model, beside, steps.optimizer), Flags(self._modules)
        self._begun = self._states()
        self._made = {} if saved is None else self._kinds()
        self._interrupted, self._keeps = False, True
        if saved is not None:
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
                raise FloatingPointError(
                    f"fit: {error} in epoch {self.epoch + 1}; scale the inputs or lower the learning rate"
                ) from None
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
        if self.batch == 0:
            self.meter = Meter(self.metrics, self.steps.loss)
            if self.saved is not None:
                self._begun = self._states()
            yield from self.train
            return
        yield from self._left(line)

    def _left(self, line: EpochProgress) -> Iterator[Any]:
        """The batches of the epoch that was begun once more, which changes nothing but the place among them."""
        now, tensors = self._states(), Snapshot(*self._modules.values())
        self._set_states(self._begun)
        batches = iter(self.train)
        for _ in range(self.batch):
            if next(batches, None) is None:
                raise ValueError(f"fit: expected at least {self.batch} batches as in the run to resume, got fewer")
            line.advance()
        self._set_states(now)
        tensors.restore()
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
            raise FloatingPointError(
                f"fit: {error} in epoch {self.epoch + 1}; scale the inputs or lower the learning rate"
            ) from None

    # Saving and loading

    def _parts(self) -> dict[str, Any]:
        return {"scheduler": self.steps.scheduler or self.scheduler, "stopping": self.stopping}

    def _kinds(self) -> dict[str, Any]:
        """The classes of the parts, and the optimizer's options but for the rate, which schedules set."""
        optimizer = self.steps.optimizer
        kinds = {name: type(part).__name__ for name, part in ({"optimizer": optimizer} | self._parts()).items()}
        groups = [{name: group[name] for name in optimizer.defaults if name != "lr"} for group in optimizer.param_groups]
        return kinds | {"options of the optimizer": groups}

    def _moving(self) -> dict[str, Any]:
        """What validation moves, too, or may."""
        moving = {"generators": self._states(), "flags": self._flags.state_dict(), "meter": self._metered() if self.batch else None}
        return moving | {"model": self.steps.model.state_dict(), "beside": self._beside.state_dict()}

    def _metered(self) -> dict[str, Any] | None:
        """What the metrics of the epoch under way have seen; None where a checkpoint cannot hold it."""
        try:
            return self.meter.state_dict()
        except TypeError as error:
            self._say_unkept(error)
            return None

    def _say_unkept(self, error: TypeError) -> None:
        if self._keeps:
            how = "give it state_dict and load_state_dict"
            warnings.warn(f"fit: no checkpoint is written inside an epoch: {error}; {how}", RuntimeWarning, stacklevel=5)
        self._keeps = False

    def save(self, moving: Mapping[str, Any] | None = None) -> None:
        """Saves the state, if it is to be saved and the weights are finite; `moving` as it was, if it has moved since."""
        if self.saved is None:
            return
        self._check_weights()
        moving = dict(self._moving() if moving is None else moving)
        meter = moving.pop("meter")
        if self.batch and meter is None:
            return  # the checkpoint before begins the epoch anew
        parts = {name: part.state_dict() if part is not None else None for name, part in self._parts().items()}
        within = {name: getattr(self, name) for name in _WITHIN} | {"begun": self._begun}
        if self.batch:
            within["meter"] = meter
        state = {"epoch": self.epoch, "history": self.history.rows, "within": within, "ended": self._ended, "made": self._made}
        self.saved.write(state | {"optimizer": self.steps.optimizer.state_dict()} | moving | parts)

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes over what `save` saved; ValueError, and nothing was changed, when the run was made with other parts."""
        for name, part in self._parts().items():
            if (state[name] is None) != (part is None):
                here, there = ("no" if p is None else "a" for p in (part, state[name]))
                raise ValueError(f"fit: expected {there} {name} as in the checkpoint, got {here} {name}")
        for name, there in state.get("made", {}).items():
            if (here := self._made[name]) != there:
                raise ValueError(f"fit: expected {name} {there} as in the checkpoint, got {here}")
        before = "flags" not in state  # when less was looked for
        drawn, found = set(state["generators"]), set(self._generators)
        if drawn - found or (found - drawn and not before):
            raise ValueError(f"fit: expected generators {sorted(drawn)}, got {sorted(found)}")
        within = state["within"]
        loaded = [(self.steps.model, state["model"]), (self.steps.optimizer, state["optimizer"])]
        loaded += [(self._beside, self._beside.completed(state.get("beside", {})) if before else state["beside"])]
        loaded += [(part, state[name]) for name, part in self._parts().items() if part is not None]
        loaded += [(self.meter, within["meter"])] if within["batch"] else []
        _load_all(loaded)
        for name in _WITHIN:
            setattr(self, name, within[name])
        self.steps.model.train()
        self._flags.load_state_dict(state.get("flags", {}))
        self._begun = within["begun"]
        self._set_states(state["generators"])
        self.epoch, self.history, self._ended = state["epoch"], History(state["history"]), state.get("ended", False)

    def _states(self) -> dict[str, Any]:
        return {name: tuple(generator.get_state()) for name, generator in self._generators.items()}

    def _set_states(self, states: Mapping[str, Any]) -> None:
        for name, generator in self._generators.items():
            if name in states:
                generator.set_state(states[name])

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


def _load_all(loaded: Sequence[tuple[Any, Any]]) -> None:
    """Loads a state into each owner, or, when one refuses, leaves all as they were."""
    before = [(owner, owner.state_dict()) for owner, _ in loaded]
    try:
        for owner, state in loaded:
            owner.load_state_dict(state)
    except Exception:
        for owner, state in before:
            owner.load_state_dict(state)
        raise


def _says_true(answer: object) -> bool:
    """Whether a callback's answer is a single True, of Python, NumPy or a Tensor."""
    if not isinstance(answer, bool | np.bool_ | np.ndarray | Tensor):
        return False
    array = np.asarray(answer)
    return array.dtype == bool and array.shape == () and bool(array)
