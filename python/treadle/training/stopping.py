"""Stopping a run that no longer gets better.

Invariant: `state_dict` holds all that decides when to stop and what to restore, so that a resumed run stops where the
uninterrupted one would.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from treadle.checks import at_least, not_negative

if TYPE_CHECKING:
    from treadle.nn import Module
    from treadle.training.history import Value

__all__ = ["EarlyStopping"]


class EarlyStopping:
    """Ends `fit` when a column of the history has not improved for some epochs.

    Args:
        monitor: The column of the history to watch.
        patience: How many epochs without improvement to bear.
        min_delta: How much better a value must be to count.
        mode: Whether lower ("min") or higher ("max") is better; None: higher of a column whose name ends in "accuracy" or "r2",
            lower of any other.
        restore_best: Give the model the weights of its best epoch at the end.

    Raises:
        ValueError: patience below 1, a negative min_delta, or another mode.

    Example:
        >>> fit(model, train, valid, ..., early_stopping=EarlyStopping("valid_accuracy", patience=5))
    """

    def __init__(
        self,
        monitor: str = "valid_loss",
        patience: int = 10,
        min_delta: float = 0.0,
        mode: Literal["min", "max"] | None = None,
        restore_best: bool = True,
    ) -> None:
        if mode not in (None, "min", "max"):
            raise ValueError(f"early_stopping: expected mode 'min' or 'max', got {mode!r}")
        self.monitor, self.patience = monitor, at_least("early_stopping", "patience", patience, 1)
        self.mode = mode or ("max" if str(monitor).endswith(("accuracy", "r2")) else "min")
        self.min_delta, self.restore_best = not_negative("early_stopping", "min_delta", min_delta), restore_best
        self.reset()

    def reset(self) -> None:
        """Forgets every epoch seen."""
        self._best = math.inf
        self._waited = 0
        self._weights: dict[str, Any] | None = None

    @property
    def stopped(self) -> bool:
        """Whether patience has run out."""
        return self._waited >= self.patience

    def expect(self, columns: Sequence[str]) -> None:
        """Refuses columns without the one to watch.

        Raises:
            ValueError: It is not among them.
        """
        if self.monitor not in columns:
            raise ValueError(f"early_stopping: expected a value of {self.monitor!r}, got only {list(columns)}")

    def update(self, row: Mapping[str, Value], model: Module) -> None:
        """Takes in an epoch's row of the history.

        Raises:
            ValueError: The row has no value to watch.
        """
        score = self._score(row)
        if score < self._best - self.min_delta:
            self._best, self._waited = score, 0
            if self.restore_best:
                self._weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        else:
            self._waited += 1

    def _score(self, row: Mapping[str, Value]) -> float:
        """The value to watch, turned so that lower is better."""
        self.expect([name for name, value in row.items() if value is not None])
        value = float(row[self.monitor])  # type: ignore[arg-type]
        return value if self.mode == "min" else -value

    def restore(self, model: Module) -> None:
        """Gives the model the weights of its best epoch, if they were kept."""
        if self._weights is not None:
            model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far."""
        return {"best": self._best, "waited": self._waited, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state_dict` returned."""
        self._best, self._waited, self._weights = float(state["best"]), int(state["waited"]), state["weights"]
