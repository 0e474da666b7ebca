"""`detect_anomaly` names the op, the layer, the numbers and the shape where the first infinity or NaN arose."""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import Tensor, nn, optim
from treadle.nn import calls


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: treadle.tensor([1.0, -1.0, 2.0]).log(), r"log: expected a finite result, got 1 of 3 values that are not, of shape \(3,\)"),
        (lambda: treadle.ones(2, 2) / treadle.zeros(2, 2), r"div: expected a finite result, got 4 of 4 values that are not, of shape \(2, 2\)"),
        (lambda: treadle.tensor([1e3]).exp(), r"exp: expected a finite result, got 1 of 1"),
        (lambda: treadle.tensor([math.nan, 1.0]) + 1.0, r"add: expected a finite input, got 1 of 2 values that are not, of shape \(2,\)"),
        (lambda: treadle.full((300, 300), 1e30) @ treadle.full((300, 300), 1e30), r"matmul: expected a finite result, got 90000 of 90000"),
        (lambda: treadle.tensor([0.0, 4.0], requires_grad=True).sqrt().sum().backward(), r"backward of sqrt: .* got 1 of 2 values that are not, of shape \(2,\)"),
    ],
    ids=["log", "div", "exp", "input", "matmul", "backward"],
)  # fmt: skip
def test_the_first_anomaly_is_named(make: Callable[[], object], message: str) -> None:
    make()
    with treadle.detect_anomaly(), pytest.raises(FloatingPointError, match=message):
        make()
    make()


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return (self.linear(x) - 1e4).log()


def test_the_layer_is_named_by_its_path() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), Encoder()))
    with treadle.detect_anomaly(), pytest.raises(FloatingPointError, match=r"log: .* of shape \(2, 3\), in 1\.1 \(Encoder\)$"):
        model(treadle.ones(2, 4))
    with treadle.detect_anomaly(), pytest.raises(FloatingPointError, match=r"linear: expected a finite input.* in 0 \(Linear\)$"):
        model(treadle.full((2, 4), math.inf))
    fused = nn.Sequential(nn.BatchNorm1d(2), nn.ReLU())
    with treadle.detect_anomaly(), pytest.raises(FloatingPointError, match=r"batch_norm: .* in 0 \(BatchNorm1d\)$"):
        fused(treadle.full((4, 2), math.inf))
    linear = nn.Linear(2, 2, bias=False)
    linear.weight.copy_(treadle.full((2, 2), -1e38))
    with treadle.detect_anomaly(), pytest.raises(FloatingPointError, match=r"linear: .* in 0 \(Linear\)$"):
        nn.Sequential(linear, nn.ReLU())(treadle.full((4, 2), 1e4))


def test_a_module_met_inside_another_s_forward_goes_by_its_class() -> None:
    class Maker(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.Sequential(Root())(x)

    with treadle.detect_anomaly(), pytest.raises(FloatingPointError, match=r"sqrt: .* in Root$"):
        Maker()(treadle.full((2,), -1.0))


def test_keywords_and_errors_pass_through_a_watched_call() -> None:
    class Scale(nn.Module):
        def forward(self, x: Tensor, *, by: float = 1.0) -> Tensor:
            if by < 0:
                raise LookupError("by")
            return x * by

    scale = Scale()
    with treadle.detect_anomaly():
        assert scale(treadle.ones(1), by=3.0).tolist() == [3.0]
        with pytest.raises(LookupError):
            scale(treadle.ones(1), by=-1.0)
        with pytest.raises(FloatingPointError, match=r"log: .* of shape \(1,\)$"):
            treadle.zeros(1).log()


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


def test_a_gradient_is_named_with_the_layer_of_its_forward() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), Root())
    with treadle.detect_anomaly():
        loss = model(treadle.zeros(2, 3)).sum()
        with pytest.raises(FloatingPointError, match=r"backward of sqrt: .* got 6 of 6 .* in 2 \(Root\)$"):
            loss.backward()


def test_what_is_finite_is_left_alone_and_the_bits_are_the_same() -> None:
    def step() -> list[bytes]:
        treadle.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
        loss = nn.functional.cross_entropy(model(treadle.randn(16, 6)), treadle.tensor([0, 1, 2, 0] * 4))
        loss.backward()
        return [p.grad.numpy().tobytes() for p in model.parameters() if p.grad is not None]

    plain = step()
    with treadle.detect_anomaly():
        assert step() == plain


def test_it_ends_with_the_block_also_after_an_error_and_can_be_nested() -> None:
    assert calls.named is None
    with treadle.detect_anomaly():
        with treadle.detect_anomaly(False):
            treadle.tensor([-1.0]).log()
        with pytest.raises(FloatingPointError):
            treadle.tensor([-1.0]).log()
        assert calls.named is not None
    treadle.tensor([-1.0]).log()
    assert calls.named is None


def test_other_threads_are_left_alone() -> None:
    said: list[object] = []

    def work() -> None:
        said.append(nn.Sequential(Root())(treadle.tensor([-1.0])).tolist())

    with treadle.detect_anomaly():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(said) == 1


def unnoticed() -> None:
    """Looks at a number that is not finite, and lets the error go by, if there is one."""
    with suppress(FloatingPointError):
        treadle.tensor([math.nan], requires_grad=True).clone()


CHANGES: dict[str, Callable[[list[nn.Parameter]], object]] = {
    "sgd": lambda params: optim.SGD(params, lr=0.1, momentum=0.9).step(),
    "adam": lambda params: optim.Adam(params, lr=0.1).step(),
    "rmsprop": lambda params: optim.RMSprop(params, lr=0.1).step(),
    "norm": lambda params: optim.clip_grad_norm_(params, 0.1),
    "value": lambda params: optim.clip_grad_value_(params, 0.1),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_step_and_a_clip_change_all_parameters_or_none(name: str) -> None:
    params = [nn.Parameter(treadle.ones(2)) for _ in range(3)]
    for p in params:
        p.grad = treadle.ones(2)
    with treadle.detect_anomaly():
        unnoticed()
        with suppress(FloatingPointError):
            CHANGES[name](params)
    assert len({(*p.tolist(), *p.grad.tolist()) for p in params if p.grad is not None}) == 1


class Watchful(nn.Module):
    """A module that looks at its parameters where it is asked for its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(treadle.ones(2))
        self.shapes: list[object] = []

    def named_modules(self, *args: Any, **kwargs: Any) -> Any:
        self.shapes.append(self.weight.shape)
        return super().named_modules(*args, **kwargs)

    def forward(self) -> None:
        self.weight.grad = treadle.ones(2)
        unnoticed()
        optim.SGD([self.weight], lr=0.5).step()


def test_no_code_of_python_runs_as_parameters_are_changed() -> None:
    model = Watchful()

    def work() -> None:
        with treadle.detect_anomaly():
            model()

    # A thread that waits for itself is left behind.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert model.weight.tolist() == [0.5, 0.5]


def calls_of_names() -> dict[str, Callable[[Tensor], object]]:
    """Every attribute, method and function of one tensor, and what else records or may."""
    found: dict[str, Callable[[Tensor], object]] = {}
    for name in dir(Tensor):
        if not name.startswith("_") and name != "backward":
            found[name] = lambda x, name=name: y() if callable(y := getattr(x, name)) else y
    for room in (treadle.ops, nn.functional):
        found |= {f"{room.__name__}.{name}": getattr(room, name) for name in room.__all__}
    return found | {
        "plus": operator.pos,
        "minus": operator.neg,
        "dropout off": lambda x: nn.functional.dropout(x, training=False),
        "dropout of 0": lambda x: nn.functional.dropout(x, 0.0),
        "astype": lambda x: x.astype("float32"),
        "slice": lambda x: x[:],
        "where": lambda x: treadle.where(treadle.ones(3, dtype="bool"), x, 0.0),
        "checkpoint": lambda x: nn.checkpoint(Tensor.clone, x),
    }


NAMES = calls_of_names()


def recorded(call: Callable[[Tensor], object]) -> bool:
    """Whether it gives a tensor on the tape with a number that is not finite."""
    try:
        y = call(treadle.full((3,), math.nan, requires_grad=True))
    except (IndexError, RuntimeError, TypeError, ValueError):
        return False
    return isinstance(y, Tensor) and y.grad_fn is not None and not np.isfinite(y.numpy()).all()


# What runs backwards is a view that is not looked at.
RECORDED = [name for name, call in NAMES.items() if not name.endswith("flip") and recorded(call)]


def test_names_that_record_are_found() -> None:
    assert {"clone", "T", "exp", "plus", "dropout off", "dropout of 0", "treadle.ops.exp"} <= set(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_an_anomaly_is_told_by_the_call_that_meets_it(name: str) -> None:
    x = treadle.full((3,), math.nan, requires_grad=True)
    with treadle.detect_anomaly():
        with pytest.raises(FloatingPointError):
            NAMES[name](x)
        assert (treadle.ones(3) + 1.0).tolist() == [2.0] * 3


def test_an_anomaly_on_the_way_in_is_told_there() -> None:
    x = treadle.full((3,), math.nan, requires_grad=True)
    with treadle.detect_anomaly():
        with pytest.raises(FloatingPointError, match=r"^astype: expected a finite input"):
            treadle.tensor(x, dtype="float64")
        treadle.ones(3).exp()


def test_numbers_of_a_call_that_fails_are_no_anomaly() -> None:
    bn, x = nn.BatchNorm1d(2).double(), treadle.full((1, 2), math.nan)
    with treadle.detect_anomaly():
        with pytest.raises(ValueError, match="more than one value"):
            bn(x)
        treadle.ones(3).exp()
