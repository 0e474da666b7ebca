"""Threads that train, predict, draw and add up at the same time do what they would alone."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import _core, nn, optim
from treadle.training import predict


def trained(seed: int) -> bytes:
    """The weights of a model after a few steps, drawn from a generator of its own."""
    g = treadle.Generator(seed)
    model = nn.Sequential(nn.Linear(64, 128, generator=g), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 10, generator=g))
    optimizer, x = optim.SGD(model.parameters(), lr=0.1, momentum=0.9), treadle.randn(256, 64, generator=g)
    for _ in range(30):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return b"".join(p.numpy().tobytes() for p in model.parameters())


def test_threads_train_as_they_would_alone() -> None:
    alone, together = [trained(s) for s in range(4)], [b""] * 4

    def work(i: int) -> None:
        together[i] = trained(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert together == alone


def test_threads_predict_with_one_model_while_others_train() -> None:
    g = treadle.Generator(5)
    model = nn.Sequential(nn.Linear(64, 128, generator=g), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 10, generator=g)).eval()
    x = treadle.randn(512, 64, generator=g)
    want, trained_alone = model(x).numpy().tobytes(), trained(3)
    wrong: list[str] = []

    def predict() -> None:
        for _ in range(40):
            with treadle.no_grad():
                if model(x).numpy().tobytes() != want:
                    wrong.append("prediction")

    def train() -> None:
        if trained(3) != trained_alone:
            wrong.append("training")

    threads = [threading.Thread(target=work) for work in (predict, train, predict, train)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_predictions_that_overlap_leave_the_model_alone() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Dropout(0.5))
    model[2].eval()
    before = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    x, inside, ended = treadle.randn(6, 4), threading.Event(), threading.Event()
    want = predict(model, x)
    found: list[Any] = []

    def later() -> Iterator[treadle.Tensor]:
        yield x[:3]
        inside.set()
        ended.wait(60)
        yield x[3:]

    def first() -> Iterator[treadle.Tensor]:
        yield x
        other.start()
        inside.wait(60)

    other = threading.Thread(target=lambda: found.append(predict(model, later())))
    np.testing.assert_array_equal(predict(model, first()), want)
    ended.set()
    other.join()
    np.testing.assert_array_equal(found, [want])
    assert [module.training for module in (model, *model)] == [True, True, True, False]
    assert {name: tensor.tolist() for name, tensor in model.state_dict().items()} == before


def test_a_shared_generator_never_repeats_itself() -> None:
    g, found = treadle.Generator(0), []

    def work() -> None:
        found.extend(treadle.rand(40_000, generator=g).numpy()[:2].tobytes() for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(found)) == 80


def test_threads_that_share_a_leaf_lose_no_gradient() -> None:
    w, g = treadle.zeros(300_000, requires_grad=True), treadle.ones(300_000)

    def work() -> None:
        for _ in range(20):
            (w * 1.0).backward(g)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert w.grad is not None
    assert (w.grad == 80).all()


@pytest.mark.parametrize("generator", [None, treadle.default_generator()], ids=["none", "the default by name"])
def test_a_checkpoint_repeats_its_draws_on_its_own_thread_only(generator: treadle.Generator | None) -> None:
    elsewhere: list[list[float]] = []

    def function(x: treadle.Tensor) -> treadle.Tensor:
        thread = threading.Thread(target=lambda: elsewhere.append(treadle.rand(4).tolist()))
        dropped = nn.functional.dropout(x, 0.5, generator=generator)
        thread.start()
        thread.join()
        return dropped

    x = treadle.ones(1000, requires_grad=True)
    y = nn.checkpoint(function, x)
    here = treadle.rand(4).tolist()
    y.sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
    assert len({tuple(drawn) for drawn in [*elsewhere, here, treadle.rand(4).tolist()]}) == 4


def test_a_checkpoint_repeats_its_draws_while_other_threads_draw() -> None:
    """Another thread draws between the start of a checkpoint and what it draws itself."""

    def function(x: treadle.Tensor) -> treadle.Tensor:
        thread = threading.Thread(target=treadle.rand, args=(4,))
        thread.start()
        thread.join()
        return nn.functional.dropout(x, 0.5)

    found = []
    for _ in range(2):
        treadle.manual_seed(3)
        for again in (False, True):
            x = treadle.ones(1000, requires_grad=True)
            y = nn.checkpoint(lambda x: nn.checkpoint(function, x) if again else function(x), x)  # noqa: B023
            y.sum().backward()
            assert x.grad is not None
            np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
            found.append(y.tolist())
    assert found[:2] == found[2:]
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("block", "switch", "outside"),
    [
        (treadle.no_grad(), _core._set_grad_enabled, (True, False)),
        (treadle.detect_anomaly(), _core._set_watching, (False, True)),
    ],
    ids=["no_grad", "detect_anomaly"],
)
def test_threads_may_share_a_block(block: Any, switch: Callable[[bool], bool], outside: tuple[bool, bool]) -> None:
    seen: list[bool] = []
    entered, left = threading.Event(), threading.Event()

    def other() -> None:
        switch(outside[1])
        with block:
            entered.set()
            left.wait(60)
        seen.append(switch(outside[1]))

    thread = threading.Thread(target=other)
    with block:
        thread.start()
        entered.wait(60)
    seen.append(switch(outside[0]))
    left.set()
    thread.join()
    assert tuple(seen) == outside


COLUMN, ROW = treadle.arange(10_000).reshape(-1, 1), treadle.arange(10_000)
PLACES = treadle.zeros(10_000, 1, dtype="int64"), treadle.zeros(10_000, dtype="int64")
BYTE, BYTES = treadle.ones(1, 1, dtype="uint8"), treadle.ones(10_000, dtype="uint8")
WIDE = BYTE.broadcast_to(10_000, 10_000)
#: Of few numbers, but of many together.
BROADCAST: dict[str, Callable[[], Any]] = {
    "comparison": lambda: COLUMN < ROW,
    "where": lambda: treadle.where(COLUMN < 5, BYTE, BYTES),
    "masked_fill": lambda: BYTES.masked_fill(COLUMN < 5, 2),
    "index": lambda: BYTE[PLACES],
    "copy_": lambda: WIDE.copy_(BYTE),
}


@pytest.mark.parametrize("name", BROADCAST)
def test_other_threads_go_on_beside_what_is_broadcast(name: str) -> None:
    stop, ticks, began = threading.Event(), [0], threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks[0] += 1
            began.set()
            time.sleep(0)  # gives the GIL to whoever waits for it

    other = threading.Thread(target=tick)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10.0)  # so that only work which releases the GIL lets the other thread run
    try:
        other.start()
        began.wait()
        before = ticks[0]
        BROADCAST[name]()
        assert ticks[0] > before
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        other.join()
