"""What a person watches while an epoch runs: a tqdm bar on a terminal, and a line for each epoch that has ended.

Invariant: the bar is written at most ten times a second, so that watching costs the training nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

__all__ = ["EpochProgress"]

_INTERVAL = 0.1  # seconds between two refreshes, and before the first
_FORMAT = "{desc} |{bar}| {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}"


class _Bar(tqdm):  # type: ignore[misc]
    monitor_interval = 0  # no watching thread: a training process may fork


class EpochProgress:
    """One epoch's progress on stderr.

    Args:
        epoch: The number of the epoch, from 1.
        epochs: How many there will be.
        total: How many batches the epoch has; None when not known.
        visible: False: nothing is written; nor is it where there is no stderr.
    """

    def __init__(self, epoch: int, epochs: int, total: int | None, visible: bool) -> None:
        self._title = f"epoch {epoch:>{len(str(epochs))}}/{epochs}"
        self._visible = visible and sys.stderr is not None and not sys.stderr.closed
        self._bar: Any = None
        if self._visible and sys.stderr.isatty():
            self._bar = _Bar(
                desc=self._title,
                total=total,
                bar_format=_FORMAT,
                mininterval=_INTERVAL,
                delay=_INTERVAL,
                dynamic_ncols=True,
                leave=False,
            )
        self._done = 0
        self._next = time.perf_counter() + _INTERVAL if self._bar is not None else float("inf")

    def advance(self) -> bool:
        """Counts a batch; True when it is time to `show` how things stand."""
        self._done += 1
        return time.perf_counter() >= self._next

    def show(self, facts: Mapping[str, float]) -> None:
        """Writes the bar with the given facts behind it."""
        with self._writing():
            self._bar.set_postfix_str(_spell(facts), refresh=False)
            self._bar.update(self._done - self._bar.n)
            self._next = time.perf_counter() + _INTERVAL

    def finish(self, trained: Mapping[str, float], valued: Mapping[str, float]) -> None:
        """Puts the epoch's line in the place of the bar."""
        self.close()
        if self._visible:
            facts = _spell(trained) + (f"  valid {_spell(valued)}" if valued else "")
            with self._writing():
                print(f"{self._title}  {facts}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            with self._writing():
                self._bar.close()
            self._bar = None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Inside, stderr that cannot be written to, on a full disk or with nobody behind its pipe, ends the showing alone."""
        try:
            yield
        except OSError:
            if self._bar is not None:
                self._bar.disable = True
            self._visible, self._bar, self._next = False, None, float("inf")


def _spell(facts: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in facts.items())
