"""Ctrl-C inside one long operation: it ends the operation, and nothing but its result is lost. Just before a call it is raised by it.

Each long operation here would take many minutes, so to end at all is to have been interrupted.
"""

from __future__ import annotations

import ctypes
import operator
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import autograd, is_grad_enabled, nn, no_grad, ones, set_grad_enabled
from treadle.nn import mode
from treadle.training import predict

#: What a line of it raises is what a signal in a tenth of a second does to it.
HEAD = """
import _thread, os, signal, sys, threading, time
import treadle
from treadle import nn
treadle.set_num_threads(int(sys.argv[1]))
if sys.argv[2] == "outside":
    # The pool belongs to the thread that first had work for it.
    other = threading.Thread(target=lambda: treadle.ones(2000, 2000).exp())
    other.start()
    other.join()
def interrupted(work):
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        work()
    except KeyboardInterrupt:
        return
    raise SystemExit("expected to be interrupted, ran to the end")
def check():
    x = treadle.arange(3_000_000, dtype="float64")
    assert x.sum().item() == 2_999_999 * 3_000_000 / 2
    assert (treadle.ones(600, 700) @ treadle.ones(700, 500)).sum().item() == 600 * 700 * 500
one = treadle.ones(1, 1)
"""
LONG = {
    "reduction": "interrupted(lambda: one.broadcast_to(10**7, 10**7).sum())",
    "reduction of columns": "interrupted(lambda: one.broadcast_to(10**7, 10**7).sum(0))",
    "matmul": "interrupted(lambda: one.broadcast_to(4096, 10**8) @ one.broadcast_to(10**8, 4096))",
    "matmul of few rows": "interrupted(lambda: one.broadcast_to(64, 10**11) @ one.broadcast_to(10**11, 64))",
    "matmul of integers": "interrupted(lambda: one.long().broadcast_to(2000, 10**9) @ one.long().broadcast_to(10**9, 2000))",
    "batches": "interrupted(lambda: one.broadcast_to(4, 2048, 10**8) @ one.broadcast_to(10**8, 2048))",
    "backward": """
w = treadle.ones(1, 1, requires_grad=True)
w.sum().backward()
y = w.broadcast_to(10**6, 10**6)
z = nn.functional.linear(treadle.ones(512, 1), treadle.ones(512, 1)).sum() * w.sum()
# The gradient of a view of that size is summed from as many ones.
interrupted(lambda: y[:, :1].broadcast_to(10**6, 10**7).sum().backward())
assert w.grad.item() == 1.0
z.backward()
assert w.grad.item() == 1.0 + 512 * 512
""",
}


def run(code: str, *args: str) -> None:
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("threads", ["1", "2", "outside"])
@pytest.mark.parametrize("name", LONG)
def test_a_long_operation_is_interrupted(name: str, threads: str) -> None:
    run(HEAD + LONG[name] + "\ncheck()\n", "2" if threads == "outside" else threads, threads)


def test_a_handler_that_does_not_raise_leaves_the_result_alone() -> None:
    code = """
seen = []
def handler(number, frame):
    # An operation of its own in the middle of the other.
    seen.append((treadle.arange(200_000) + 1).sum().item())
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.03, 0.03)
x = treadle.arange(1000, dtype="float64").reshape(1000, 1).broadcast_to(1000, 10**7)
total = x.sum().item()
signal.setitimer(signal.ITIMER_REAL, 0)
assert total == 10**7 * 999 * 1000 / 2, total
assert len(seen) > 2, seen
assert set(seen) == {200_000 * 200_001 // 2}, seen
"""
    for threads in ("1", "2"):
        run(HEAD + code, threads, "inside")


@pytest.mark.parametrize(
    "made",
    [
        "treadle.tensor(one.broadcast_to(2 * 10**8), dtype='uint8')",
        "treadle.tensor(np.broadcast_to(np.float32(1), 10**8))",
        "treadle.tensor(np.broadcast_to(np.uint8(1), 10**8), dtype='float32')",
    ],
    ids=["a tensor", "an array with gaps", "an array of another type"],
)
def test_a_handler_runs_as_arrays_are_copied_and_cast(made: str) -> None:
    code = f"""
import numpy as np
treadle.arange(10**6).sum()
calls, one = 0, treadle.ones(1)
def handler(number, frame):
    global calls
    calls += 1
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
before = calls
x = {made}
after = calls
signal.setitimer(signal.ITIMER_REAL, 0)
# One may come just before the call, and one as it ends.
assert after - before > 2, after - before
assert x.sum().item() == x.size
"""
    run(HEAD + code, "1", "inside")


def test_other_threads_go_on() -> None:
    code = """
results = []
def work():
    while not stop.is_set():
        results.append((treadle.ones(300, 400) @ treadle.ones(400, 300)).sum().item())
        results.append(treadle.arange(400_000).sum().item())
stop = threading.Event()
workers = [threading.Thread(target=work) for _ in range(2)]
for worker in workers:
    worker.start()
for _ in range(3):
    interrupted(lambda: one.broadcast_to(10**7, 10**7).sum())
stop.set()
for worker in workers:
    worker.join()
assert set(results) == {300 * 400 * 300.0, 399_999 * 200_000}, set(results)
check()
"""
    run(HEAD + code, "2", "inside")


def test_ctrl_c_before_the_first_long_operation_is_not_lost() -> None:
    code = """
import ctypes, functools, operator
ctrl_c = functools.partial(getattr(ctypes.CDLL(None), "raise"), signal.SIGINT)
try:
    list(map(operator.call, [ctrl_c, one.broadcast_to(300, 300).exp]))
except KeyboardInterrupt:
    pass
else:
    raise SystemExit("expected to be interrupted, ran to the end")
interrupted(lambda: one.broadcast_to(10**7, 10**7).sum())
"""
    run(HEAD + code, "1", "inside")


X, WHOLE = treadle.ones(3, 4), treadle.zeros(3, dtype="int64")
#: Calls that answer something even if what they ask Python for fails.
CALLS: dict[str, Callable[[], Any]] = {
    "dtype == name": partial(operator.eq, WHOLE.dtype, "int64"),
    "dtype != name": partial(operator.ne, WHOLE.dtype, "int64"),
    "dtype == dtype of NumPy": partial(operator.eq, WHOLE.dtype, np.dtype("int64")),
    "dtype by name": partial(treadle.zeros, 2, dtype="float32"),
    "dtype by class": partial(treadle.zeros, 2, dtype=np.float32),
    "astype": partial(X.astype, "float64"),
    "device": partial(treadle.zeros, 2, device="cpu"),
    "== None": partial(operator.eq, X, None),
    "== text": partial(operator.eq, X, "a"),
    "== object": partial(operator.eq, X, object()),
    "beyond int64": partial(operator.eq, X, 2**70),
    "array": partial(operator.add, WHOLE, np.ones(3)),
    "reshape by NumPy's number": partial(X.reshape, np.int64(12)),
    "reshape by a range": partial(X.reshape, range(12, 13)),
    "index by a list": partial(operator.getitem, X, [0]),
    "index by an object": partial(operator.getitem, X, object()),
    "index by an array": partial(operator.getitem, X, np.ones(3, bool)),
    "assignment": partial(operator.setitem, X, [0], 1.0),
    "axis": partial(X.sum, np.int64(0)),
    "number": partial(treadle.full, (2,), np.float32(3)),
    "clip": partial(X.clip, np.float64(0)),
    "seed": partial(treadle.Generator, "a"),
    "no tensor": partial(treadle.nn.functional.linear, [1.0], X),
}


def struck(call: Callable[[], Any]) -> None:
    """Makes a call with a signal pending, and no Python code in between, where it would be seen."""
    ctrl_c = partial(getattr(ctypes.CDLL(None), "raise"), signal.SIGINT)
    # A call that asks Python for nothing leaves the signal to the lines after it, even if it fails.
    with suppress(IndexError, TypeError, ValueError):
        list(map(operator.call, [ctrl_c, call]))
    for _ in range(9):
        pass


@pytest.mark.parametrize("name", CALLS)
def test_ctrl_c_just_before_a_call_is_raised(name: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        struck(CALLS[name])


def test_running_statistics_hold_whole_updates_only() -> None:
    code = """
norm, x = nn.BatchNorm1d(4), one.broadcast_to(3 * 10**6, 4)
def train():
    while True:
        norm(x)
for _ in range(5):
    interrupted(train)
    steps = norm.num_batches_tracked.item()
    assert all(abs(mean - (1 - 0.9**steps)) < 1e-5 for mean in norm.running_mean.tolist()), (steps, norm.running_mean)
"""
    for threads in ("1", "2"):
        run(HEAD + code, threads, "inside")


def test_unfinished_numbers_are_no_anomaly() -> None:
    code = """
with treadle.detect_anomaly():
    interrupted(lambda: one.broadcast_to(10**7, 10**7).mean())
    interrupted(lambda: one.broadcast_to(4096, 10**8) @ one.broadcast_to(10**8, 4096))
    one.exp()
check()
"""
    run(HEAD + code, "2", "inside")


def test_an_optimizers_step_is_taken_in_all_groups_or_in_none() -> None:
    code = """
from treadle import optim
params = [nn.Parameter(treadle.ones(300_000)) for _ in range(6)]
for p in params:
    p.grad = treadle.ones(300_000)
optimizer = optim.Adam([{"params": [p]} for p in params])
def steps():
    while True:
        optimizer.step()
for i in range(15):
    interrupted(steps)
    counts = {group["steps"][0] for group in optimizer.param_groups}
    assert len(counts) == 1, counts
"""
    run(HEAD + code, "1", "inside")


def test_a_handler_in_the_middle_of_backward_sees_the_mode_of_its_caller() -> None:
    code = """
seen = []
def handler(number, frame):
    w = treadle.ones(3, requires_grad=True)
    (w * 2).sum().backward()
    seen.append((treadle.is_grad_enabled(), treadle._core._is_recomputing(), w.grad.tolist()))
signal.signal(signal.SIGALRM, handler)
w = treadle.ones(1500, 1500, requires_grad=True)
y = (w @ w @ w @ w).sum()
signal.setitimer(signal.ITIMER_REAL, 0.03, 0.03)
y.backward()
signal.setitimer(signal.ITIMER_REAL, 0)
assert len(seen) > 2, seen
assert all(found == (True, False, [2.0, 2.0, 2.0]) for found in seen), seen
"""
    run(HEAD + code, "1", "inside")


def test_ctrl_c_reaches_a_child_forked_from_another_thread_than_the_main_one() -> None:
    code = """
status = []
def fork():
    treadle.ones(100_000).sum()  # in the parent, this is not the main thread
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        interrupted(lambda: one.broadcast_to(10**7, 10**7).sum())
        os._exit(0)
    status.append(os.waitpid(child, 0)[1])
thread = threading.Thread(target=fork)
thread.start()
thread.join()
assert status == [0]
"""
    run(HEAD + code, "1", "inside")


@contextmanager
def interrupted_at(file: str | None, moment: int) -> Iterator[list[str]]:
    """Ctrl-C at a moment, counted from 1, at which Python looks for signals in a file; gives the function that it met.

    That is where a function starts or goes on, and where one of C returns.
    """
    met: list[str] = []
    left = moment

    def look(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal left
        if frame.f_code.co_filename == file and event in ("call", "c_return") and not met:
            left -= 1
            if not left:
                met.append(frame.f_code.co_name)
                raise KeyboardInterrupt

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        with suppress(KeyboardInterrupt):
            yield met
    finally:
        sys.setprofile(before)


def test_ctrl_c_amid_an_evaluation_leaves_the_mode_as_it_was() -> None:
    x, functions = ones(2, 4), set()
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5))
    for moment in range(1, 1000):
        with interrupted_at(mode.__file__, moment) as met:
            predict(model, x)
        assert [module.training for module in model.modules()] == [True] * 3, met
        assert not mode._holds, met
        for training in (False, True):
            model.train(training)
            predict(model, x)
            assert [module.training for module in model.modules()] == [training] * 3, met
        if not met:
            break
        functions.update(met)
    assert functions == {"evaluating", "_leave", "__init__"}


@pytest.mark.parametrize("form", ["block", "decorator"])
def test_ctrl_c_as_recording_changes_leaves_it_as_it_was(form: str) -> None:
    def block(n: int) -> None:
        with no_grad():
            ones(n)

    work = block if form == "block" else no_grad()(ones)
    for moment in range(1, 100):
        with interrupted_at(autograd.__file__, moment) as met:
            work(2)
        if met == ["__exit__"]:  # Nothing of Python's can hold a signal back as a block is left.
            set_grad_enabled(True)
        assert is_grad_enabled(), met
        if not met:
            break
    assert moment > 3
