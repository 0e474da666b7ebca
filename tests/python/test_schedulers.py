"""`treadle.optim.lr_scheduler`: every schedule against its rates written out, state, and what is refused."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle import Tensor, nn, optim
from treadle.training import load_checkpoint, save_checkpoint


def made(*rates: float) -> optim.Optimizer:
    return optim.SGD([{"params": [Tensor(np.zeros(1), requires_grad=True)], "lr": rate} for rate in rates or (1.0,)])


def rates(scheduler: optim.LRScheduler, steps: int) -> list[float]:
    """The rate of the first group at the start and after each step."""
    found = [scheduler.get_last_lr()[0]]
    for _ in range(steps):
        scheduler.step()
        found.append(scheduler.get_last_lr()[0])
    assert scheduler.optimizer.param_groups[0]["lr"] == found[-1]
    return found


MAKERS: list[Callable[[optim.Optimizer], Any]] = [
    lambda o: optim.StepLR(o, 2, 0.5),
    lambda o: optim.MultiStepLR(o, [5, 2, 2], 0.1),
    lambda o: optim.ExponentialLR(o, 0.9),
    lambda o: optim.LambdaLR(o, lambda step: 1 / (1 + step)),
    lambda o: optim.LinearLR(o, 0.25, 0.75, 4),
    lambda o: optim.CosineAnnealingLR(o, 4, 0.01),
    lambda o: optim.OneCycleLR(o, 2.0, 12),
]


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (MAKERS[0], [1, 1, 0.5, 0.5, 0.25, 0.25]),
        (MAKERS[1], [1, 1, 0.01, 0.01, 0.01, 0.001, 0.001]),
        (MAKERS[2], [1, 0.9, 0.81, 0.729]),
        (MAKERS[3], [1, 1 / 2, 1 / 3, 1 / 4]),
        (MAKERS[4], [0.25, 0.375, 0.5, 0.625, 0.75, 0.75, 0.75]),
        # Half way down after T_max / 2, at the end after T_max, and up again.
        (lambda o: optim.CosineAnnealingLR(o, 2, 0.2), [1, 0.6, 0.2, 0.6, 1, 0.6]),
        # Up over steps 0 to 2, down over 2 to 4: the cosine's half way is the mean.
        (
            lambda o: optim.OneCycleLR(o, 1.0, 5, pct_start=0.6, div_factor=10, final_div_factor=10),
            [0.1, 0.55, 1, (1 + 0.01) / 2, 0.01, 0.01],
        ),
    ],
)
def test_rates_are_as_written(make: Callable[[optim.Optimizer], Any], wanted: list[float]) -> None:
    np.testing.assert_allclose(rates(make(made()), len(wanted) - 1), wanted, rtol=1e-12)


@given(
    total=st.integers(1, 40),
    share=st.floats(0, 1),
    top=st.floats(1e-4, 10),
    div=st.floats(1, 100),
    final=st.floats(1, 1e5),
)
def test_one_cycle_goes_up_then_down_and_ends_low(total: int, share: float, top: float, div: float, final: float) -> None:
    scheduler = optim.OneCycleLR(made(7.0), top, total, share, div, final)
    found = rates(scheduler, total)
    peak = int(np.argmax(found))
    slack = 1e-12 * top
    assert np.all(np.diff(found[: peak + 1]) >= -slack)
    assert np.all(np.diff(found[peak:]) <= slack)
    assert max(found) <= top + slack
    assert min(found) >= top / (div * final) - slack
    assert found[-1] == pytest.approx(top / (div * final), rel=1e-6, abs=slack) or share * total > total - 1
    with pytest.raises(ValueError, match=f"^one_cycle_lr: expected at most {total} steps, got {total + 1}$"):
        scheduler.step()
    assert scheduler.get_last_lr() == [found[-1]]
    assert scheduler.last_step == total


@pytest.mark.parametrize("make", MAKERS[:-1])
def test_every_group_keeps_its_own_scale(make: Callable[[optim.Optimizer], Any]) -> None:
    scheduler = make(made(1.0, 0.1))
    for _ in range(3):
        scheduler.step()
    alone = make(made(0.1))
    for _ in range(3):
        alone.step()
    assert scheduler.get_last_lr()[1] == alone.get_last_lr()[0]


@pytest.mark.parametrize("make", MAKERS)
def test_a_loaded_schedule_continues_bit_for_bit(make: Callable[[optim.Optimizer], Any]) -> None:
    scheduler = make(made(0.3, 0.7))
    for _ in range(3):
        scheduler.step()
    state = scheduler.state_dict()
    twin = make(made(5.0, 6.0))
    twin.load_state_dict(state)
    assert twin.get_last_lr() == scheduler.get_last_lr()
    assert [g["lr"] for g in twin.optimizer.param_groups] == scheduler.get_last_lr()
    scheduler.step()
    twin.step()
    assert twin.get_last_lr() == scheduler.get_last_lr()
    assert state["last_step"] == 3


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"^lr_scheduler: expected \['base_lrs', 'last_step'\], got \[\]$"),
        ({"last_step": 1, "base_lrs": [1.0, 2.0]}, r"^lr_scheduler: expected 2 parameter groups as at the start, got 1$"),
        ({"last_step": -1, "base_lrs": [1.0]}, r"^lr_scheduler: expected last_step of at least 0, got -1$"),
        ({"last_step": 13, "base_lrs": [1.0]}, r"^one_cycle_lr: expected at most 12 steps, got 13$"),
        ({"last_step": 1, "base_lrs": [math.nan]}, r"^lr_scheduler: expected base_lrs as a list .* of at least 0, got \[nan\]$"),
        ({"last_step": 1, "base_lrs": 1.0}, r"^lr_scheduler: expected base_lrs as a list .*, got 1.0$"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(state: dict[str, Any], message: str) -> None:
    scheduler = MAKERS[-1](made())
    scheduler.step()
    before = scheduler.state_dict(), scheduler.get_last_lr()
    with pytest.raises(ValueError, match=message):
        scheduler.load_state_dict(state)
    assert (scheduler.state_dict(), scheduler.get_last_lr()) == before


def test_a_group_that_came_later_is_an_error() -> None:
    optimizer = made()
    scheduler = optim.StepLR(optimizer, 1)
    optimizer.add_param_group({"params": [Tensor(np.zeros(1))]})
    with pytest.raises(ValueError, match="expected 1 parameter groups as at the start, got 2"):
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 1.0
    assert scheduler.last_step == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: optim.StepLR(o, 0), "step_lr: expected step_size of at least 1, got 0"),
        (lambda o: optim.StepLR(o, 1, -0.1), "step_lr: expected gamma of at least 0, got -0.1"),
        (lambda o: optim.MultiStepLR(o, [1], -1), "multi_step_lr: expected gamma of at least 0, got -1"),
        (lambda o: optim.ExponentialLR(o, math.nan), "exponential_lr: expected gamma of at least 0, got nan"),
        (lambda o: optim.LinearLR(o, 0.0), r"linear_lr: expected factors in \(0, 1\] and \[0, 1\], got 0.0 and 1.0"),
        (lambda o: optim.LinearLR(o, end_factor=1.5), r"linear_lr: expected factors in \(0, 1\] and \[0, 1\], got 0.33.* and 1.5"),
        (lambda o: optim.LinearLR(o, total_iters=0), "linear_lr: expected total_iters of at least 1, got 0"),
        (lambda o: optim.CosineAnnealingLR(o, 0), "cosine_annealing_lr: expected T_max of at least 1, got 0"),
        (lambda o: optim.CosineAnnealingLR(o, 1, -1), "cosine_annealing_lr: expected eta_min of at least 0, got -1"),
        (lambda o: optim.OneCycleLR(o, 0.0, 5), "one_cycle_lr: expected max_lr above 0, got 0.0"),
        (lambda o: optim.OneCycleLR(o, 9.0, 0), "one_cycle_lr: expected total_steps of at least 1, got 0"),
        (lambda o: optim.OneCycleLR(o, 9.0, 5, 1.5), r"one_cycle_lr: expected pct_start in \[0, 1\], got 1.5"),
        (lambda o: optim.ReduceLROnPlateau(o, "least"), "reduce_lr_on_plateau: expected mode 'min' or 'max'"),
        (lambda o: optim.ReduceLROnPlateau(o, factor=1.0), r"reduce_lr_on_plateau: expected .* factor in \(0, 1\)"),
        (lambda o: optim.ReduceLROnPlateau(o, patience=-1), "reduce_lr_on_plateau: expected patience of at least 0, got -1"),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[[optim.Optimizer], Any], message: str) -> None:
    optimizer = made()
    with pytest.raises(ValueError, match=f"^{message}"):
        make(optimizer)
    assert optimizer.param_groups[0]["lr"] == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: optim.StepLR("a", 1), "lr_scheduler: expected an optimizer, got str"),
        (lambda o: optim.ReduceLROnPlateau(None), "lr_scheduler: expected an optimizer, got NoneType"),
        (lambda o: optim.MultiStepLR(o, 3), "multi_step_lr: expected milestones as a list of ints, got int"),
        (lambda o: optim.LambdaLR(o, [abs]), "lambda_lr: expected lr_lambda as a function of the step, got list"),
        (lambda o: optim.StepLR(o, 1).load_state_dict(3), "lr_scheduler: expected a state_dict, got int"),
    ],
)
def test_what_is_of_another_type_is_named(make: Callable[[Any], Any], message: str) -> None:
    optimizer = made()
    with pytest.raises(TypeError, match=f"^{message}$"):
        make(optimizer)
    assert optimizer.param_groups[0]["lr"] == 1.0


@pytest.mark.parametrize("wrong", [-1.0, math.inf, math.nan])
def test_a_factor_that_gives_no_rate_changes_none(wrong: float) -> None:
    optimizer = made(1.0, 0.5)
    message = f"^lr_scheduler: expected rates that are finite and at least 0, got {wrong}$"
    with pytest.raises(ValueError, match=message):
        optim.LambdaLR(optimizer, lambda step: wrong)
    schedule = optim.LambdaLR(optimizer, lambda step: 0.5 if step < 2 else wrong)
    schedule.step()
    with pytest.raises(ValueError, match=message):
        schedule.step()
    assert (schedule.get_last_lr(), schedule.last_step) == ([0.5, 0.25], 1)


@pytest.mark.parametrize("rate", [Fraction(1, 2), np.float16(0.5), np.float32(0.5)])
def test_numbers_of_any_kind_become_those_of_python(tmp_path: Path, rate: Any) -> None:
    sgd = optim.SGD([Tensor(np.zeros(1), requires_grad=True)], lr=rate, weight_decay=rate, maximize=np.bool_(True))  # type: ignore
    schedule = optim.StepLR(sgd, 1, rate)
    schedule.step()
    adam = optim.Adam([Tensor(np.zeros(1), requires_grad=True)], betas=(rate, rate))
    adam.param_groups[0]["lr"] = rate
    save_checkpoint(tmp_path / "a", {"states": [state.state_dict() for state in (sgd, schedule, adam)]})
    first, second, third = load_checkpoint(tmp_path / "a")["states"]
    group = first["groups"][0]
    assert (group["lr"], group["weight_decay"], group["maximize"], second["base_lrs"]) == (0.25, 0.5, True, [0.5])
    assert (third["groups"][0]["lr"], third["groups"][0]["betas"]) == (0.5, (0.5, 0.5))
    assert {type(value) for value in schedule.get_last_lr()} == {float}


def test_a_schedule_takes_over_from_the_one_before() -> None:
    sgd = optim.SGD([nn.Parameter([1.0])], lr=1.0)
    first, second = optim.StepLR(sgd, 1), optim.ExponentialLR(sgd, 0.5)
    second.step()
    with pytest.raises(RuntimeError, match="expected one schedule for an optimizer, got a step of StepLR after another was made"):
        first.step()
    assert sgd.param_groups[0]["lr"] == 0.5
    plateau = optim.ReduceLROnPlateau(sgd)
    with pytest.raises(RuntimeError, match="got a step of ExponentialLR"):
        second.step()
    copy.deepcopy(plateau).step(1.0)
    optim.StepLR(sgd, 1)
    with pytest.raises(RuntimeError, match="got a step of ReduceLROnPlateau"):
        plateau.step(1.0)


@pytest.mark.parametrize(
    "make",
    [
        optim.LRScheduler,
        lambda o: optim.LambdaLR(o, lambda step: 1 / step),
        lambda o: optim.OneCycleLR(o, 1.0, 3, pct_start=2),
        lambda o: optim.ReduceLROnPlateau(o, patience=0.5),
    ],
)
def test_a_schedule_that_cannot_be_made_leaves_the_one_before(make: Callable[[optim.Optimizer], Any]) -> None:
    optimizer = made()
    first = optim.ExponentialLR(optimizer, 0.5)
    with pytest.raises((TypeError, ValueError, ZeroDivisionError)):
        make(optimizer)
    first.step()
    assert first.get_last_lr() == [0.5]


def test_a_schedule_without_a_factor_is_an_error() -> None:
    with pytest.raises(TypeError, match="expected LRScheduler to define factor"):
        optim.LRScheduler(made())


# plateau ----------------------------------------------------------------------


def plateau(measured: list[float], **options: Any) -> list[float]:
    scheduler = optim.ReduceLROnPlateau(made(), **options)
    found = []
    for metric in measured:
        scheduler.step(metric)
        found.append(scheduler.get_last_lr()[0])
    return found


def test_a_rate_on_a_plateau_is_not_lowered_by_next_to_nothing() -> None:
    optimizer = made(1e-7)
    scheduler = optim.ReduceLROnPlateau(optimizer, patience=0)
    for _ in range(5):
        scheduler.step(1.0)
    assert scheduler.get_last_lr() == [pytest.approx(1e-8)]  # as PyTorch has it
    scheduler = optim.ReduceLROnPlateau(optimizer, patience=0, eps=0.0)
    for _ in range(3):
        scheduler.step(1.0)
    assert scheduler.get_last_lr() == [pytest.approx(1e-10)]


@pytest.mark.parametrize(
    ("measured", "options", "wanted"),
    [
        # The third step without improvement is one more than accepted.
        ([5, 5, 5, 5, 5], {"factor": 0.5, "patience": 2}, [1, 1, 1, 0.5, 0.5]),
        ([5, 5, 5, 4, 4, 4, 4], {"factor": 0.5, "patience": 2}, [1, 1, 1, 1, 1, 1, 0.5]),
        # An improvement below the threshold does not count; one at the edge of it does not either.
        ([100, 95, 89], {"factor": 0.5, "patience": 0, "threshold": 0.1}, [1, 0.5, 0.5]),
        ([100, 90], {"factor": 0.5, "patience": 0, "threshold": 0.1}, [1, 0.5]),
        ([1, 2, 3, 3], {"mode": "max", "factor": 0.5, "patience": 0}, [1, 1, 1, 0.5]),
        # Steps that cool down are not counted.
        ([1, 1, 1, 1, 1], {"factor": 0.5, "patience": 0, "cooldown": 2}, [1, 0.5, 0.5, 0.5, 0.25]),
        ([1, 1, 1, 1], {"factor": 0.1, "patience": 0, "min_lr": 0.05}, [1, 0.1, 0.05, 0.05]),
        # A rate below min_lr is not raised.
        ([1, 1], {"factor": 0.1, "patience": 0, "min_lr": 2.0}, [1, 1]),
        # A loss that is not a number is no improvement, nor a best.
        ([math.nan, 1, math.nan], {"factor": 0.5, "patience": 0}, [0.5, 0.5, 0.25]),
        # Below zero, better is still further down.
        ([-1, -2, -1.9999], {"factor": 0.5, "patience": 0}, [1, 1, 0.5]),
    ],
)
def test_plateau(measured: list[float], options: dict[str, Any], wanted: list[float]) -> None:
    np.testing.assert_allclose(plateau(measured, **options), wanted, rtol=1e-12)


def test_a_plateau_continues_from_its_state() -> None:
    scheduler = optim.ReduceLROnPlateau(made(), factor=0.5, patience=1)
    scheduler.step(1.0)
    scheduler.step(1.0)
    twin = optim.ReduceLROnPlateau(made(9.0), factor=0.5, patience=1)
    twin.load_state_dict(scheduler.state_dict())
    assert twin.get_last_lr() == [1.0]
    twin.step(1.0)
    assert twin.get_last_lr() == [0.5]
    assert scheduler.get_last_lr() == [1.0]
    before = twin.state_dict()
    wrong: list[dict[str, Any]] = [{"lrs": [1.0, 2.0]}, {"lrs": ["a"]}, {"lrs": [math.nan]}, {"best": "x"}, {"best": math.nan}]
    wrong += [{"bad_steps": -1}, {"bad_steps": 1.5}, {"cooling": None}]
    for state in ({}, *({**before, "lrs": [0.125], **change} for change in wrong)):
        with pytest.raises((ValueError, TypeError), match=r"^(reduce_lr_on_plateau|lr_scheduler): expected"):
            twin.load_state_dict(state)
        assert twin.state_dict() == before
