"""Learning-rate schedules.

A schedule is a function of how many steps were taken: `factor(step)` times the rates the optimizer began with. `step()` is
called once per epoch (or per batch, where the schedule is meant so). `ReduceLROnPlateau` alone depends on a measurement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from treadle.checks import above_zero, at_least, not_negative, number, probability
from treadle.optim._rates import assign, expect_newest, expect_optimizer, mapping, rates_in, rates_of, take_over
from treadle.optim.optimizer import Optimizer

__all__ = [
    "CosineAnnealingLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "ReduceLROnPlateau",
    "StepLR",
]


class LRScheduler:
    """Base class: sets the rate of every group to its first one times `factor(step)`.

    Args:
        optimizer: Whose `lr`s are set, at once and at every `step()`. A schedule that was made later takes the place of one
            made before: to step that is a RuntimeError, as each would undo the other's rates.

    Raises:
        TypeError: Something other than an Optimizer, or a factor that is no number.
        ValueError: A factor that gives a rate below 0 or none that is finite; no rate was changed.

    Example:
        >>> scheduler = optim.StepLR(optimizer, step_size=30)
        >>> for epoch in range(90):
        ...     train(model, optimizer)
        ...     scheduler.step()

    Source: the formulas, in closed form, of PyTorch's `torch.optim.lr_scheduler`.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer, self.last_step = expect_optimizer(optimizer), 0
        self.base_lrs = self._first_rates()
        assign(optimizer, self._rates(0, self.base_lrs))
        self._number = take_over(optimizer)

    def _first_rates(self) -> list[float]:
        """What `_rates` starts from; nothing is changed before they are known, so that a schedule before this one goes on."""
        return rates_of(self.optimizer)

    def factor(self, step: int) -> float:
        """What the first rate is multiplied by after `step` steps; defined by subclasses."""
        raise TypeError(f"lr_scheduler: expected {type(self).__name__} to define factor, got a class without it")

    def _rates(self, step: int, base_lrs: Sequence[float]) -> list[float]:
        factor = number("lr_scheduler", f"factor({step})", self.factor(step))
        return [base * factor for base in base_lrs]

    def step(self) -> None:
        """Moves to the next rate; RuntimeError if another schedule was made for the optimizer since."""
        expect_newest(self)
        assign(self.optimizer, self._rates(self.last_step + 1, self.base_lrs))
        self.last_step += 1

    def get_last_lr(self) -> list[float]:
        """The rate of every group."""
        return rates_of(self.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` continues from."""
        return {"last_step": self.last_step, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a snapshot, and sets the rates of its step; those set by hand since are in the optimizer's snapshot,
        which is to be loaded after this one.

        Raises:
            TypeError: A state that is no dict.
            ValueError: A snapshot of another kind of schedule, of other parameter groups, or of numbers that no schedule has;
                nothing was changed.
        """
        if set(mapping("lr_scheduler", state)) != {"last_step", "base_lrs"}:
            raise ValueError(f"lr_scheduler: expected ['base_lrs', 'last_step'], got {sorted(state)}")
        step, base_lrs = at_least("lr_scheduler", "last_step", state["last_step"], 0), rates_in("lr_scheduler", "base_lrs", state)
        assign(self.optimizer, self._rates(step, base_lrs))
        self.last_step, self.base_lrs = step, base_lrs


class StepLR(LRScheduler):
    """Times `gamma` every `step_size` steps.

    Args:
        optimizer: Whose rates are set.
        step_size: At least 1.
        gamma: At least 0.

    Raises:
        ValueError: An option out of range.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size, self.gamma = at_least("step_lr", "step_size", step_size, 1), not_negative("step_lr", "gamma", gamma)
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """gamma^⌊step / step_size⌋."""
        return self.gamma ** (step // self.step_size)


class MultiStepLR(LRScheduler):
    """Times `gamma` at every milestone.

    Args:
        optimizer: Whose rates are set.
        milestones: Numbers of steps, in any order; one given twice counts twice.
        gamma: At least 0.

    Raises:
        ValueError: A gamma below 0.
    """

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1) -> None:
        if not isinstance(milestones, Iterable):
            raise TypeError(f"multi_step_lr: expected milestones as a list of ints, got {type(milestones).__name__}")
        self.milestones = sorted(at_least("multi_step_lr", "milestones", step, 0) for step in milestones)
        self.gamma = not_negative("multi_step_lr", "gamma", gamma)
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """gamma^(milestones passed)."""
        return self.gamma ** sum(step >= milestone for milestone in self.milestones)


class ExponentialLR(LRScheduler):
    """Times `gamma` every step.

    Args:
        optimizer: Whose rates are set.
        gamma: At least 0.

    Raises:
        ValueError: A gamma below 0.
    """

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = not_negative("exponential_lr", "gamma", gamma)
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """gamma^step."""
        return self.gamma**step


class LambdaLR(LRScheduler):
    """Whatever a function of the step says.

    Args:
        optimizer: Whose rates are set.
        lr_lambda: From the number of steps taken to what the first rate is multiplied by.

    Example:
        >>> warm_up = optim.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 100))
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float]) -> None:
        if not callable(lr_lambda):
            raise TypeError(f"lambda_lr: expected lr_lambda as a function of the step, got {type(lr_lambda).__name__}")
        self.lr_lambda = lr_lambda
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """lr_lambda(step)."""
        return self.lr_lambda(step)


class LinearLR(LRScheduler):
    """From `start_factor` to `end_factor` in a straight line over `total_iters` steps, and on there.

    Args:
        optimizer: Whose rates are set.
        start_factor: In (0, 1].
        end_factor: In [0, 1].
        total_iters: At least 1.

    Raises:
        ValueError: An option out of range.
    """

    def __init__(self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5) -> None:
        self.start_factor = number("linear_lr", "start_factor", start_factor)
        self.end_factor = number("linear_lr", "end_factor", end_factor)
        if not 0 < self.start_factor <= 1 or not 0 <= self.end_factor <= 1:
            raise ValueError(f"linear_lr: expected factors in (0, 1] and [0, 1], got {start_factor} and {end_factor}")
        self.total_iters = at_least("linear_lr", "total_iters", total_iters, 1)
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """start + (end − start)·step/total."""
        return self.start_factor + (self.end_factor - self.start_factor) * min(step / self.total_iters, 1)


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the first rate to `eta_min` over `T_max` steps, and on.

    Args:
        optimizer: Whose rates are set.
        T_max: At least 1.
        eta_min: At least 0.

    Raises:
        ValueError: An option out of range.

    Source: Loshchilov & Hutter 2017, "SGDR: stochastic gradient descent with warm restarts", without the restarts.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max = at_least("cosine_annealing_lr", "T_max", T_max, 1)
        self.eta_min = not_negative("cosine_annealing_lr", "eta_min", eta_min)
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """½(1 + cos(π·step/T_max)): the share of the way down that is left."""
        return (1 + math.cos(math.pi * step / self.T_max)) / 2

    def _rates(self, step: int, base_lrs: Sequence[float]) -> list[float]:
        left = self.factor(step)
        return [self.eta_min + (base - self.eta_min) * left for base in base_lrs]


class OneCycleLR(LRScheduler):
    """Up to `max_lr` and down again along cosines, in `total_steps` steps, one per batch. Momentum stays as it is.

    Args:
        optimizer: Whose rates are set.
        max_lr: The rate at the top.
        total_steps: Steps of the whole cycle.
        pct_start: Share of the steps that go up.
        div_factor: max_lr over the first rate.
        final_div_factor: The first rate over the last.

    Raises:
        ValueError: More steps than the cycle has, or options out of range.

    Example:
        >>> scheduler = optim.OneCycleLR(optimizer, max_lr=0.1, total_steps=epochs * len(loader))

    Source: Smith & Topin 2019, "Super-convergence: very fast training of neural networks using large learning rates".
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float,
        total_steps: int,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        self.max_lr = above_zero("one_cycle_lr", "max_lr", max_lr)
        self.div_factor = above_zero("one_cycle_lr", "div_factor", div_factor)
        self.final_div_factor = above_zero("one_cycle_lr", "final_div_factor", final_div_factor)
        self.total_steps = at_least("one_cycle_lr", "total_steps", total_steps, 1)
        self.pct_start = probability("one_cycle_lr", "pct_start", pct_start)
        super().__init__(optimizer)

    def _first_rates(self) -> list[float]:
        return [self.max_lr] * len(self.optimizer.param_groups)

    def factor(self, step: int) -> float:
        """Share of max_lr after `step` steps."""
        if step > self.total_steps:
            raise ValueError(f"one_cycle_lr: expected at most {self.total_steps} steps, got {step}")
        top = self.pct_start * self.total_steps - 1
        low, end = 1 / self.div_factor, 1 / (self.div_factor * self.final_div_factor)
        if step <= top:
            return _cosine(low, 1, step, top)
        return _cosine(1, end, step - top, self.total_steps - 1 - top)


def _cosine(start: float, end: float, done: float, of: float) -> float:
    """From start to end along half a cosine, after `done` of `of` steps; a way of no steps is at its end."""
    share = min(done / of, 1) if of > 0 else 1
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


class ReduceLROnPlateau:
    """Times `factor` when a measurement has not improved for more than `patience` steps.

    Args:
        optimizer: Whose rates are set.
        mode: "min" if smaller is better, "max" if larger is.
        factor: What rates are multiplied by, in (0, 1).
        patience: Steps without improvement that are accepted.
        threshold: Improvement that counts, as a share of the best measurement's magnitude.
        cooldown: Steps after a reduction in which nothing is counted.
        min_lr: Rates are not lowered below it.
        eps: Rates are not lowered by so little or less.

    Raises:
        ValueError: An option out of range.

    Example:
        >>> scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=5)
        >>> scheduler.step(valid_loss)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        self.factor = number("reduce_lr_on_plateau", "factor", factor)
        if mode not in ("min", "max") or not 0 < self.factor < 1:
            raise ValueError(f"reduce_lr_on_plateau: expected mode 'min' or 'max' and factor in (0, 1), got {mode!r} and {factor}")
        self.optimizer, self.mode = expect_optimizer(optimizer), mode
        self.patience = at_least("reduce_lr_on_plateau", "patience", patience, 0)
        self.threshold = not_negative("reduce_lr_on_plateau", "threshold", threshold)
        self.cooldown = at_least("reduce_lr_on_plateau", "cooldown", cooldown, 0)
        self.min_lr = not_negative("reduce_lr_on_plateau", "min_lr", min_lr)
        self.eps = not_negative("reduce_lr_on_plateau", "eps", eps)
        self._number = take_over(optimizer)
        self.best = math.inf if mode == "min" else -math.inf
        self.bad_steps = self.cooling = 0

    def _improves(self, metric: float) -> bool:
        if math.isinf(self.best):
            return metric < self.best if self.mode == "min" else metric > self.best
        margin = abs(self.best) * self.threshold
        return metric < self.best - margin if self.mode == "min" else metric > self.best + margin

    def step(self, metric: float) -> None:
        """Takes a measurement into account; RuntimeError if another schedule was made for the optimizer since."""
        expect_newest(self)
        metric = number("reduce_lr_on_plateau", "metric", metric)
        if self._improves(metric):
            self.best, self.bad_steps = metric, 0
        else:
            self.bad_steps += 1
        if self.cooling > 0:
            self.cooling -= 1
            self.bad_steps = 0
        if self.bad_steps > self.patience:
            self.cooling, self.bad_steps = self.cooldown, 0
            for group in self.optimizer.param_groups:
                lowered = max(group["lr"] * self.factor, self.min_lr)
                if group["lr"] - lowered > self.eps:
                    group["lr"] = lowered

    def get_last_lr(self) -> list[float]:
        """The rate of every group."""
        return rates_of(self.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` continues from."""
        return {"best": self.best, "bad_steps": self.bad_steps, "cooling": self.cooling, "lrs": self.get_last_lr()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a snapshot.

        Raises:
            TypeError, ValueError: As `LRScheduler.load_state_dict`; nothing was changed.
        """
        op, counts = "reduce_lr_on_plateau", ("bad_steps", "cooling")
        if set(mapping(op, state)) != {"best", *counts, "lrs"}:
            raise ValueError(f"{op}: expected {sorted(['best', *counts, 'lrs'])}, got {sorted(state)}")
        best, (bad_steps, cooling) = state["best"], (at_least(op, name, state[name], 0) for name in counts)
        if not isinstance(best, Real) or math.isnan(best):
            raise ValueError(f"{op}: expected best as a number, got {best!r}")
        assign(self.optimizer, rates_in(op, "lrs", state))
        self.best, self.bad_steps, self.cooling = float(best), bad_steps, cooling
