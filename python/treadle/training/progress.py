"""The line a person watches while an epoch runs: a tqdm bar on a terminal, one plain line per epoch elsewhere.

Invariant: the line is written at most ten times a second, so that watching costs the training nothing.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

__all__ = ["EpochProgress"]

_INTERVAL = 0.1  # seconds between two refreshes


class _Bar(tqdm):  # type: ignore[misc]
    monitor_interval = 0  # no watching thread: a training process may fork


class EpochProgress:
    """One epoch's progress line on stderr.

    Args:
        epoch: The number of the epoch, from 1.
        epochs: How many there will be.
        total: How many batches the epoch has; None when not known.
        visible: False: nothing is written.
    """

    def __init__(self, epoch: int, epochs: int, total: int | None, visible: bool) -> None:
        width = len(str(epochs))
        self._title = f"epoch {epoch:>{width}}/{epochs}"
        self._visible = visible
        self._bar: Any = None
        if visible and sys.stderr.isatty():
            self._bar = _Bar(total=total, desc=self._title, unit="batch", mininterval=_INTERVAL, dynamic_ncols=True, leave=True)
        self._done = 0
        self._next = time.perf_counter() + _INTERVAL if self._bar is not None else float("inf")

    def advance(self) -> bool:
        """Counts a batch; True when it is time to `show` how things stand."""
        self._done += 1
        return time.perf_counter() >= self._next

    def show(self, facts: dict[str, float]) -> None:
        """Writes the bar with the given facts behind it."""
        self._bar.set_postfix_str(_spell(facts), refresh=False)
        self._bar.update(self._done - self._bar.n)
        self._next = time.perf_counter() + _INTERVAL

    def finish(self, facts: dict[str, float]) -> None:
        """Leaves the epoch's last line."""
        if self._bar is not None:
            self._bar.mininterval = 0.0
            self.show(facts)
            self.close()
        elif self._visible:
            print(f"{self._title}  {_spell(facts)}", file=sys.stderr)

    def close(self) -> None:
        """Leaves the bar as it stands and the cursor on a line of its own."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _spell(facts: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in facts.items())
