"""`treadle.optim`: options and parameters that are refused, when an optimizer is made and between its steps."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from test_optim import leaf

import treadle
from treadle import Tensor, _core, ones_like, optim


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.Adam([p], lr=-1), r"^adam: expected lr as a finite number of at least 0, got -1$"),
        (lambda p: optim.SGD([p], lr=math.nan), r"^sgd: expected lr as a finite number of at least 0, got nan$"),
        (lambda p: optim.SGD([p], momentum=-0.1), r"^sgd: expected momentum as a finite number of at least 0, got -0.1$"),
        (lambda p: optim.SGD([p], weight_decay=-1), r"^sgd: expected weight_decay as a finite number of at least 0, got -1$"),
        (lambda p: optim.SGD([p], nesterov=True), r"^sgd: expected momentum above 0 and no dampening with nesterov, got"),
        (lambda p: optim.SGD([p], momentum=0.9, dampening=0.1, nesterov=True), r"momentum 0.9 and dampening 0.1$"),
        (lambda p: optim.AdamW([p], betas=(0.9, 1.0)), r"^adamw: expected betas as two numbers in \[0, 1\), got \(0.9, 1.0\)$"),
        (lambda p: optim.Adam([p], eps=-1e-8), r"^adam: expected eps as a finite number of at least 0, got -1e-08$"),
        (lambda p: optim.RMSprop([p], alpha=1.0), r"^rmsprop: expected alpha as a number in \[0, 1\), got 1.0$"),
        (lambda p: optim.RMSprop([p], momentum=-1), r"^rmsprop: expected momentum as a finite number of at least 0, got -1$"),
        (lambda p: optim.Adam([]), r"^adam: expected at least one parameter, got none$"),
        (lambda p: optim.Adam([p, p]), r"^adam: expected every parameter once, got one twice$"),
        (lambda p: optim.Adam([{"params": [p]}, {"params": [p]}]), r"^adam: expected every parameter once"),
        (lambda p: optim.Adam([{"lr": 1.0}]), r"^adam: expected a group with 'params', got \['lr'\]$"),
        (lambda p: optim.Adam([{"params": [p], "rate": 1.0}]), r"^adam: expected options among .*, got \['rate'\]$"),
        (lambda p: optim.Adam([{"params": [p], "lr": -2}]), r"^adam: expected lr as a finite number of at least 0, got -2$"),
        (lambda p: optim.Adam([p * 2]), r"^adam: expected leaves of the graph, got the output of"),
    ],
)
def test_what_is_out_of_range_is_refused(make: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(leaf([1.0]))


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop])
def test_an_option_is_of_its_kind_and_finite(kind: Any) -> None:
    p = leaf([1.0])
    for option, default in kind([p]).defaults.items():
        if option == "betas":
            wrong: list[Any] = [(0.9, math.nan), (True, 0.9), ("a", 0.9), 0.9, None, (0.9,)]
        elif isinstance(default, bool):
            wrong = ["a", 1, None]
        else:
            wrong = [math.nan, math.inf, "a", True, None, [0.1]]
        for value in wrong:
            with pytest.raises(
                ValueError, match=rf"^{kind.__name__.lower()}: expected {option} as .*, got {re.escape(repr(value))}$"
            ):
                kind([p], **{option: value})
    kind([p], lr=np.float32(0.1), maximize=np.bool_(True))


def test_options_are_set_between_steps_and_betas_are_any_two() -> None:
    p, q = leaf([1.0]), leaf([1.0])
    p.grad, q.grad = ones_like(p), ones_like(q)
    some = optim.Adam([p], betas=[0.5, 0.9])  # type: ignore[arg-type]
    some.step()
    optim.Adam([q], betas=(0.5, 0.9)).step()
    assert p.item() == q.item() < 1.0
    for option, value in [
        ("lr", None),
        ("betas", "ab"),
        ("maximize", 1),
        ("lr", math.nan),
        ("lr", -1.0),
        ("eps", -1.0),
        ("betas", (0.5, 1.5)),
    ]:
        before, some.param_groups[0][option] = some.param_groups[0][option], value
        with pytest.raises(ValueError, match=rf"^adam: expected {option} as .*, got {re.escape(repr(value))}$"):
            some.step()
        some.param_groups[0][option] = before
    assert p.item() == q.item()
    with pytest.raises(ValueError, match=r"^sgd: expected lr as a finite number"):
        optim.SGD([p], lr=10**400)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.5])
@pytest.mark.parametrize(
    ("kind", "option"),
    [(optim.SGD, "lr"), (optim.SGD, "momentum"), (optim.SGD, "weight_decay"), (optim.RMSprop, "alpha"), (optim.RMSprop, "lr")],
)
def test_a_step_with_impossible_options_changes_nothing(kind: Any, option: str, value: float) -> None:
    first, second = leaf([1.0]), leaf([1.0])
    first.grad = second.grad = ones_like(first)
    optimizer = kind([{"params": [first]}, {"params": [second]}], lr=0.1)
    optimizer.param_groups[1][option] = value
    with pytest.raises(ValueError, match=rf"^{kind.__name__.lower()}: expected {option} as .*, got {value}$"):
        optimizer.step()
    assert first.item() == second.item() == 1.0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("lr", treadle.tensor(0.05)),
        ("lr", np.asarray(0.05)),
        ("lr", Decimal("0.05")),
        ("weight_decay", np.array(0.01)),
        ("momentum", np.float32(0.5)),
    ],
)
def test_what_a_step_takes_can_be_saved_and_loaded(option: str, value: Any) -> None:
    def stepped(option: str, value: Any) -> Any:
        p = leaf([1.0])
        p.grad = ones_like(p)
        optimizer = optim.SGD([p], lr=0.1, momentum=0.9)
        optimizer.param_groups[0][option] = value
        optimizer.step()
        return p, optimizer

    (p, optimizer), (q, twin) = stepped(option, value), stepped(option, float(value))
    state = optimizer.state_dict()
    assert p.item() == q.item()
    assert type(state["groups"][0][option]) is float
    twin.load_state_dict(state)
    assert twin.state_dict()["groups"][0][option] == float(value)


@pytest.mark.parametrize(("option", "value"), [("momentum", 0.0), ("dampening", 0.1)])
def test_a_step_refuses_what_nesterov_cannot_be_with(option: str, value: float) -> None:
    p = leaf([1.0])
    p.grad = ones_like(p)
    optimizer = optim.SGD([p], momentum=0.9, nesterov=True)
    optimizer.param_groups[0][option] = value
    with pytest.raises(ValueError, match=r"^sgd: expected momentum above 0 and no dampening with nesterov, got"):
        optimizer.step()
    del optimizer.param_groups[0]["lr"]
    with pytest.raises(ValueError, match=r"^sgd: expected groups with .*, got one without \['lr'\]$"):
        optimizer.step()
    assert p.item() == 1.0


def test_a_centred_spread_is_never_below_zero() -> None:
    p = leaf([1.0])
    optimizer = optim.RMSprop([p], lr=1e-3, alpha=0.5, centered=True)
    for _ in range(300):
        p.grad = ones_like(p) * 0.3
        optimizer.step()
    assert math.isfinite(p.item())


def test_what_is_no_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^sgd: expected parameters, got list$"):
        optim.SGD([[1.0]])
    with pytest.raises(TypeError, match=r"^sgd: expected parameter groups as dicts, got Tensor$"):
        optim.SGD([{"params": [leaf([1.0])]}, leaf([2.0])])
    with pytest.raises(TypeError, match="expected Optimizer to define _update"):
        optim.Optimizer([leaf([1.0])], {"lr": 0.1, "weight_decay": 0.0}).step()


# state ------------------------------------------------------------------------


def test_the_core_says_what_it_got_for_nesterov() -> None:
    rates = {"lr": 0.1, "momentum": 0.5, "dampening": 0.25, "weight_decay": 0.0}
    group = {"params": [], "state": {"momentum_buffer": []}, **rates, "nesterov": True, "maximize": False}
    message = "^sgd_step: expected momentum above 0 and no dampening with nesterov, got momentum 0.5 and dampening 0.25$"
    with pytest.raises(ValueError, match=message):
        _core.sgd_step([group])
