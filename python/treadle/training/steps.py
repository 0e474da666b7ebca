"""One step of training, and what becomes of a step whose numbers are not finite.

Invariant: a step is taken as a whole or not at all.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

from treadle._core import Tensor, all_finite, clip_grad_norm
from treadle.nn import Module
from treadle.optim import LRScheduler, Optimizer, ReduceLROnPlateau
from treadle.training.beside import Before
from treadle.training.checks import scalar
from treadle.training.evaluation import Loss
from treadle.training.reach import Reach

__all__ = ["NonFinite", "Steps"]

NonFinite: TypeAlias = Literal["raise", "skip", "stop"]


class Steps:
    """Takes steps.

    Args:
        model: The model.
        loss: Takes outputs and targets, gives a scalar.
        optimizer: Holds the parameters to train.
        scheduler: Stepped after each step; None: none is.
        clip_norm: Scale gradients down to this joint norm; None: leave them.
        on_nonfinite: What `fit` does about a loss that is not finite.

    Raises:
        ValueError: Another on_nonfinite.
    """

    def __init__(
        self,
        model: Module,
        loss: Loss,
        optimizer: Optimizer,
        scheduler: LRScheduler | ReduceLROnPlateau | None,
        clip_norm: float | None,
        on_nonfinite: NonFinite,
    ) -> None:
        if on_nonfinite not in ("raise", "skip", "stop"):
            raise ValueError(f"fit: expected on_nonfinite 'raise', 'skip' or 'stop', got {on_nonfinite!r}")
        self.model, self.loss, self.optimizer, self.scheduler = model, loss, optimizer, scheduler
        self.on_nonfinite = on_nonfinite
        self._guarded = on_nonfinite != "raise"
        # The joint norm tells whether every gradient is finite; no bound leaves them as they are.
        self._clip_norm = math.inf if clip_norm is None and self._guarded else clip_norm
        self._reach = Reach(model, {"loss": loss}) if self._guarded else None

    def take(self, inputs: Any, targets: Any) -> tuple[float, Tensor] | None:
        """One step; the batch's loss and the model's outputs, or None when it was not taken.

        Raises:
            FloatingPointError: The loss is not finite, and that is to end the run.
        """
        before = None if self._reach is None else Before(self._reach)
        outputs = self.model(inputs)
        loss = self.loss(outputs, targets)
        value = scalar("fit", loss)
        finite = math.isfinite(value)
        if not finite and not self._guarded:
            raise FloatingPointError(f"expected a finite loss, got {value}")
        if finite:
            self.optimizer.zero_grad()
            loss.backward()
            finite = self._clip()
        if not finite:
            self.optimizer.zero_grad()
            if before is not None:
                before.restore()
            return None
        del before  # which would have the optimizer make copies of what it changes
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()  # type: ignore[call-arg]
        return value, outputs

    def _clip(self) -> bool:
        """Clips the gradients; False when they are looked at and not finite."""
        if self._clip_norm is None:
            return True
        norm = clip_grad_norm(self._trained(), self._clip_norm)
        return not self._guarded or math.isfinite(float(norm))

    def _trained(self) -> list[Tensor]:
        """What the optimizer holds now."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def check_weights(self) -> None:
        """Looks at every parameter that is trained.

        Raises:
            FloatingPointError: One holds an infinity or NaN.
        """
        if not all_finite(self._trained()):
            bad = [name for name, parameter in self.model.named_parameters() if not all_finite([parameter])]
            raise FloatingPointError(f"expected finite weights, got others in {', '.join(map(repr, bad))}")
