"""The rates of an optimizer's groups, as schedules read, check and set them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from treadle.checks import number
from treadle.optim.optimizer import Optimizer, is_number


def expect_optimizer(value: Any) -> Optimizer:
    if not isinstance(value, Optimizer):
        raise TypeError(f"lr_scheduler: expected an optimizer, got {type(value).__name__}")
    return value


def rates_of(optimizer: Optimizer) -> list[float]:
    return [number("lr_scheduler", "lr", group["lr"]) for group in optimizer.param_groups]


def take_over(optimizer: Optimizer) -> int:
    """The number of a new schedule: which one of the optimizer's it is."""
    optimizer.schedules += 1
    return optimizer.schedules


def expect_newest(schedule: Any) -> None:
    if schedule._number != schedule.optimizer.schedules:
        kind = type(schedule).__name__
        raise RuntimeError(f"lr_scheduler: expected one schedule for an optimizer, got a step of {kind} after another was made")


def assign(optimizer: Optimizer, rates: Sequence[float]) -> None:
    """Sets the rate of every group, or where one cannot be one, none."""
    groups = optimizer.param_groups
    if len(rates) != len(groups):
        raise ValueError(f"lr_scheduler: expected {len(rates)} parameter groups as at the start, got {len(groups)}")
    for rate in rates:
        if not is_number(rate):
            raise ValueError(f"lr_scheduler: expected rates that are finite and at least 0, got {rate}")
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = float(rate)


def rates_in(op: str, name: str, state: Mapping[str, Any]) -> list[float]:
    """The rates of a snapshot."""
    rates = state[name]
    if not isinstance(rates, list | tuple) or not all(isinstance(rate, Real) and float(rate) >= 0 for rate in rates):
        raise ValueError(f"{op}: expected {name} as a list of numbers of at least 0, got {rates!r}")
    return [float(rate) for rate in rates]


def mapping(op: str, state: Any) -> Mapping[str, Any]:
    if not isinstance(state, Mapping):
        raise TypeError(f"{op}: expected a state_dict, got {type(state).__name__}")
    return state
