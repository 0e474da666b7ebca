"""`treadle.optim`: every optimizer against its formula in NumPy, groups, state, clipping; `test_optim_options.py` has what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle import Tensor, nn, optim, randn

Array = npt.NDArray[np.float64]

STEPS = 6


def sgd(p: Array, g: Array, held: dict[str, Any], step: int, **o: Any) -> Array:
    g = (-g if o.get("maximize") else g) + o.get("weight_decay", 0) * p
    if momentum := o.get("momentum", 0):
        held["v"] = g if step == 1 else momentum * held["v"] + (1 - o.get("dampening", 0)) * g
        g = g + momentum * held["v"] if o.get("nesterov") else held["v"]
    return p - o["lr"] * g


def adam(p: Array, g: Array, held: dict[str, Any], step: int, *, decoupled: bool = False, **o: Any) -> Array:
    (b1, b2), eps, decay = o.get("betas", (0.9, 0.999)), o.get("eps", 1e-8), o.get("weight_decay", 0.01 if decoupled else 0)
    g = -g if o.get("maximize") else g
    if decoupled:
        p = p - o["lr"] * decay * p
    else:
        g = g + decay * p
    held["m"] = b1 * held.get("m", 0) + (1 - b1) * g
    held["s"] = b2 * held.get("s", 0) + (1 - b2) * g * g
    return p - o["lr"] * (held["m"] / (1 - b1**step)) / (np.sqrt(held["s"] / (1 - b2**step)) + eps)


def adamw(p: Array, g: Array, held: dict[str, Any], step: int, **o: Any) -> Array:
    return adam(p, g, held, step, decoupled=True, **o)


def rmsprop(p: Array, g: Array, held: dict[str, Any], step: int, **o: Any) -> Array:
    alpha, eps = o.get("alpha", 0.99), o.get("eps", 1e-8)
    g = (-g if o.get("maximize") else g) + o.get("weight_decay", 0) * p
    held["s"] = alpha * held.get("s", 0) + (1 - alpha) * g * g
    spread = held["s"]
    if o.get("centered"):
        held["m"] = alpha * held.get("m", 0) + (1 - alpha) * g
        spread = spread - held["m"] ** 2
    g = g / (np.sqrt(spread) + eps)
    if momentum := o.get("momentum", 0):
        held["v"] = g = momentum * held.get("v", 0) + g
    return p - o["lr"] * g


CASES: list[tuple[Any, Any, dict[str, Any]]] = [
    (optim.SGD, sgd, {"lr": 0.1}),
    (optim.SGD, sgd, {"lr": 0.1, "weight_decay": 0.2, "maximize": True}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01, "maximize": True}),
    (optim.Adam, adam, {"lr": 0.05}),
    (optim.Adam, adam, {"lr": 0.05, "betas": (0.5, 0.7), "eps": 1e-2, "weight_decay": 0.1, "maximize": True}),
    (optim.AdamW, adamw, {"lr": 0.05}),
    (optim.AdamW, adamw, {"lr": 0.05, "betas": (0.0, 0.5), "weight_decay": 0.3, "maximize": True}),
    (optim.RMSprop, rmsprop, {"lr": 0.05}),
    (optim.RMSprop, rmsprop, {"lr": 0.05, "alpha": 0.5, "momentum": 0.9, "weight_decay": 0.1}),
    (optim.RMSprop, rmsprop, {"lr": 5e-5, "alpha": 0.99999999}),
    (optim.RMSprop, rmsprop, {"lr": 5e-5, "alpha": 0.99999999, "momentum": 0.9}),
    (optim.RMSprop, rmsprop, {"lr": 0.05, "centered": True, "maximize": True}),
    (optim.RMSprop, rmsprop, {"lr": 0.05, "centered": True, "momentum": 0.4, "alpha": 0.0, "eps": 0.1}),
]
MAKERS = [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop]


def leaf(value: Any, dtype: str = "float64") -> Tensor:
    return Tensor(np.asarray(value, np.float64), dtype, requires_grad=True)


def gradients(seed: int, count: int, shape: tuple[int, ...]) -> list[Array]:
    return list(np.random.default_rng(seed).normal(size=(count, *shape)))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
@pytest.mark.parametrize(("kind", "rule", "options"), CASES)
def test_steps_follow_the_formula(kind: Any, rule: Any, options: dict[str, Any], dtype: str, tolerance: float) -> None:
    shapes = [(3, 4), (5,), (1, 1)]
    starts = [np.random.default_rng(i).normal(size=shape) for i, shape in enumerate(shapes)]
    params = [leaf(start, dtype) for start in starts]
    optimizer = kind(params, **options)
    wanted, held = list(starts), [dict[str, Any]() for _ in shapes]
    for step in range(1, STEPS + 1):
        for i, p in enumerate(params):
            g = gradients(100 * i + step, 1, shapes[i])[0]
            p.grad = Tensor(g, dtype)
            wanted[i] = rule(wanted[i], g, held[i], step, **options)
        optimizer.step()
        for p, want in zip(params, wanted, strict=True):
            np.testing.assert_allclose(p.numpy(), want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", MAKERS)
def test_large_parameters_follow_the_same_formula_everywhere(kind: Any) -> None:
    start = np.linspace(-1, 1, 70_001)
    whole, few = leaf(start), leaf(start[-7:])
    optimizer = kind([whole, few], lr=0.1)
    for g in gradients(3, 3, start.shape):
        whole.grad, few.grad = Tensor(g), Tensor(g[-7:])
        optimizer.step()
    np.testing.assert_array_equal(whole.numpy()[-7:], few.numpy())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("kind", "rule", "options"),
    [
        (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.4}),
        (optim.Adam, adam, {"lr": 0.05, "betas": (0.3, 0.3)}),
        (optim.RMSprop, rmsprop, {"lr": 0.05, "alpha": 0.3}),
        (optim.RMSprop, rmsprop, {"lr": 0.05, "alpha": 0.3, "centered": True, "momentum": 0.4}),
    ],
)
def test_moments_decay_to_zero_not_to_subnormal_numbers(kind: Any, rule: Any, options: dict[str, Any], dtype: str) -> None:
    start = np.random.default_rng(0).normal(size=50)
    p, held, want = leaf(start, dtype), dict[str, Any](), start
    optimizer, smallest = kind([p], **options), np.finfo(dtype).tiny
    for step, g in enumerate([start, *[np.zeros(50)] * 900], 1):
        p.grad = Tensor(g, dtype)
        optimizer.step()
        want = rule(want, g, held, step, **options)
        for moments in optimizer.param_groups[0]["state"].values():
            far = abs(moments[0].numpy()) if moments[0] is not None else np.zeros(1)
            assert ((far == 0) | (far >= smallest)).all()
    assert all(moments[0] is None or not moments[0].numpy().any() for moments in optimizer.param_groups[0]["state"].values())
    np.testing.assert_allclose(p.numpy(), want, rtol=1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("kind", MAKERS)
def test_parameters_without_a_gradient_stay_and_count_no_step(kind: Any) -> None:
    first, idle, frozen = leaf([1.0, 2.0]), leaf([3.0]), Tensor(np.ones(2))
    optimizer = kind([first, idle, frozen], lr=0.1)
    first.grad = Tensor(np.ones(2))
    optimizer.step()
    assert idle.tolist() == [3.0]
    assert frozen.tolist() == [1.0, 1.0]
    assert first.tolist() != [1.0, 2.0]
    # Its first step comes later, and is a first step.
    alone = leaf([3.0])
    other = kind([alone], lr=0.1)
    idle.grad = alone.grad = Tensor(np.array([0.5]))
    optimizer.step()
    other.step()
    assert idle.tolist() == alone.tolist()
    assert frozen.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("kind", MAKERS)
def test_no_gradient_at_all_changes_nothing(kind: Any) -> None:
    p = leaf([1.0])
    kind([p], lr=0.1).step()
    assert p.tolist() == [1.0]


@pytest.mark.parametrize("kind", [optim.Adam, optim.RMSprop, optim.SGD])
def test_a_rejected_step_changes_nothing(kind: Any) -> None:
    a, b = leaf([1.0]), leaf([2.0])
    options = {"momentum": 0.9} if kind is optim.SGD else {}
    optimizer = kind([a, b], lr=0.1, **options)
    a.grad, b.grad = Tensor(np.ones(1)), Tensor(np.ones(1))
    optimizer.step()
    before = a.tolist(), optimizer.state_dict()["groups"][0]["steps"]
    b.data = np.ones(3)
    b.grad = Tensor(np.ones(3))
    with pytest.raises(ValueError, match=r"expected a .* of float64 and shape \(3,\), got float64 and \(1,\)"):
        optimizer.step()
    assert (a.tolist(), optimizer.state_dict()["groups"][0]["steps"]) == before


@pytest.mark.parametrize("kind", [optim.Adam, optim.RMSprop, optim.SGD])
def test_a_step_that_one_group_rejects_changes_no_group(kind: Any) -> None:
    a, b = leaf([1.0]), leaf([2.0])
    options = {"momentum": 0.9} if kind is optim.SGD else {}
    optimizer = kind([{"params": [a]}, {"params": [b]}], lr=0.1, **options)
    for _ in range(2):
        b.grad = Tensor(np.ones(1))
        optimizer.step()
    before = a.tolist(), str(optimizer.state_dict())
    b.data = np.ones(3)
    a.grad, b.grad = Tensor(np.ones(1)), Tensor(np.ones(3))  # the first step that would make a state for a
    for _ in range(2):
        with pytest.raises(ValueError, match=r"expected a .* of float64 and shape \(3,\), got float64 and \(1,\)"):
            optimizer.step()
    assert (a.tolist(), str(optimizer.state_dict())) == before


def test_groups_have_options_of_their_own() -> None:
    a, b, c = leaf([1.0]), leaf([1.0]), leaf([1.0])
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 1.0}], lr=0.5)
    optimizer.add_param_group({"params": [c], "lr": 0.25, "weight_decay": 2.0})
    for p in (a, b, c):
        p.grad = Tensor(np.array([1.0]))
    optimizer.step()
    assert [p.item() for p in (a, b, c)] == [0.5, 0.0, 0.25]
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert a.item() == 0.5
    assert repr(optimizer).startswith("SGD(\n  1 parameters: lr=0.0, momentum=0.0")


def test_gradients_are_cleared_under_both_names() -> None:
    p = leaf([1.0])
    optimizer = optim.SGD([p], lr=0.1)
    for clear in (optimizer.zero_grad, optimizer.reset_grad):
        p.grad = Tensor(np.ones(1))
        clear()
        assert p.grad is None


def train(params: list[Tensor], optimizer: optim.Optimizer, steps: range) -> None:
    for step in steps:
        for i, p in enumerate(params):
            p.grad = Tensor(gradients(1000 * i + step, 1, p.shape)[0], p.dtype)
        optimizer.step()


@pytest.mark.parametrize(("kind", "options"), [(kind, options) for kind, _, options in CASES])
def test_a_loaded_state_continues_bit_for_bit(kind: Any, options: dict[str, Any]) -> None:
    params = [leaf(np.ones((3, 2)), "float32"), leaf(np.zeros(4), "float32")]
    optimizer = kind(params, **options)
    train(params, optimizer, range(3))
    saved, values = optimizer.state_dict(), [p.numpy().copy() for p in params]
    train(params, optimizer, range(3, 6))
    ends = [p.numpy().copy() for p in params]
    for _ in range(2):  # a snapshot can be loaded again: training did not write into it
        twins = [Tensor(v, requires_grad=True) for v in values]
        twin = kind(twins, **{**options, "lr": 123.0})
        twin.load_state_dict(saved)
        train(twins, twin, range(3, 6))
        for p, end in zip(twins, ends, strict=True):
            np.testing.assert_array_equal(p.numpy(), end)


def test_what_else_is_put_into_a_group_is_no_part_of_the_state() -> None:
    first, second = (optim.SGD([leaf(np.ones(2))], lr=lr) for lr in (0.5, 0.25))
    first.param_groups[0]["name"], second.param_groups[0]["scale"] = "head", print
    second.load_state_dict(first.state_dict())
    assert second.param_groups[0]["lr"] == 0.5
    assert (first.param_groups[0]["name"], second.param_groups[0]["scale"]) == ("head", print)
    assert "name" not in second.param_groups[0]


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    def made(*shapes: tuple[int, ...], dtype: str = "float64", kind: Any = optim.Adam) -> Any:
        params = [leaf(np.ones(shape), dtype) for shape in shapes]
        optimizer = kind(params, lr=0.5)
        train(params, optimizer, range(2))
        return optimizer

    optimizer = made((2,), (3,))
    before = repr(optimizer.state_dict())
    good = made((2,), (3,)).state_dict()
    group = good["groups"][0]
    bad = [
        (made((2,)).state_dict(), "for 2 parameters, got .* for 1 parameters"),
        (made((2,), (4,)).state_dict(), r"expected exp_avg as float64 of shape \(3,\), got float64 of shape \(4,\)"),
        (made((2,), (3,), dtype="float32").state_dict(), r"expected exp_avg as float64 .* got float32"),
        (made((2,), (3,), kind=optim.RMSprop).state_dict(), "expected a group with"),
        ({}, "expected 'groups' of 1 parameter groups, got entries"),
        ({"groups": [group, group]}, "expected 'groups' of 1 parameter groups, got 2"),
        ({"groups": [{**group, "lr": -1.0}]}, "expected lr as a finite number of at least 0"),
        ({"groups": [{**group, "steps": [1, -1]}]}, "expected steps of at least 0"),
        ({"groups": [{**group, "params": []}]}, "expected a group with"),
        ({"groups": [None]}, "expected a group with .*, got NoneType"),
        ({"groups": [{**group, "steps": 3}]}, "expected state as a dict and steps as a list, got dict and int"),
        ({"groups": [{**group, "state": {**group["state"], "exp_avg": None}}]}, "expected 2 tensors in exp_avg, got NoneType"),
        ({"groups": [{**group, "state": {**group["state"], "exp_avg": [None]}}]}, "expected 2 tensors in exp_avg, got 1"),
        ({"groups": [{**group, "state": {**group["state"], "exp_avg": [None, 1.0]}}]}, "expected tensors in exp_avg, got float"),
    ]
    for state, message in bad:
        with pytest.raises(ValueError, match=f"^adam: .*{message}"):
            optimizer.load_state_dict(state)
        assert repr(optimizer.state_dict()) == before


def test_a_model_learns() -> None:
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    x = randn(64, 4)
    y = x.sum(1, keepdims=True).sin()
    losses = []
    for _ in range(150):
        loss = ((model(x) - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.item()))
    assert losses[-1] < 0.2 * losses[0]


# clipping ---------------------------------------------------------------------


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
@given(scale=st.floats(1e-3, 1e3), limit=st.floats(1e-2, 1e2))
def test_clipping_by_norm(norm_type: float, scale: float, limit: float) -> None:
    grads = [scale * g for g in (gradients(1, 1, (3, 4))[0], gradients(2, 1, (5,))[0])]
    params = [leaf(np.zeros(g.shape)) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = Tensor(g)
    flat = np.concatenate([g.reshape(-1) for g in grads])
    norm = np.linalg.norm(flat, norm_type)
    assert optim.clip_grad_norm_([*params, leaf([1.0])], limit, norm_type) == pytest.approx(norm, rel=1e-12)
    for p, g in zip(params, grads, strict=True):
        assert p.grad is not None
        np.testing.assert_allclose(p.grad.numpy(), g * min(1.0, limit / (norm + 1e-6)), rtol=1e-12)


def test_clipping_by_value_and_of_one_tensor() -> None:
    p = leaf(np.zeros((2, 2)))
    p.grad = kept = Tensor(np.array([[-3.0, -0.5], [0.5, 3.0]]))
    optim.clip_grad_value_(p, 1.0)
    assert p.grad.tolist() == [[-1.0, -0.5], [0.5, 1.0]]
    assert kept.tolist() == [[-3.0, -0.5], [0.5, 3.0]]
    assert nn.utils.clip_grad_norm_(p, 0.5) == pytest.approx(math.sqrt(2.5))
    assert np.linalg.norm(p.grad.numpy()) == pytest.approx(0.5, rel=1e-5)


def test_limits_below_zero_are_refused() -> None:
    p = leaf([1.0])
    p.grad = Tensor(np.ones(1))
    with pytest.raises(ValueError, match=r"^clip_grad_norm: expected max_norm of at least 0 and norm_type above 0, got -1 and 2$"):
        optim.clip_grad_norm_([p], -1)
    with pytest.raises(ValueError, match="norm_type above 0"):
        optim.clip_grad_norm_([p], 1, 0)
    with pytest.raises(ValueError, match=r"^clip_grad_value: expected a limit of at least 0, got -1$"):
        optim.clip_grad_value_([p], -1)
    assert p.grad.tolist() == [1.0]
