"""A training step in its steady state asks the system for no memory and gives none back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import treadle
from benches.peers import goals, rows
from treadle import _core, nn, optim

# (hidden, batch, inputs): memory of the thread's own lists, and blocks that are maps of their own.
SIZES = [(32, 16, 16), (256, 128, 784), (512, 1024, 784)]
STEPS = """
import os, sys
import treadle
from treadle import nn, optim
h, batch, d = map(int, sys.argv[1:])
model = nn.Sequential(nn.Linear(d, h), nn.BatchNorm1d(h), nn.ReLU(), nn.Linear(h, h), nn.BatchNorm1d(h), nn.ReLU(), nn.Linear(h, 10))
update, loss_of = optim.Adam(model.parameters(), lr=1e-3), nn.CrossEntropyLoss()
x, y = treadle.randn(batch, d), treadle.tensor([i % 10 for i in range(batch)])
for i in range(161):
    if i in (60, 160):
        os.getppid()  # marks the trace
    update.zero_grad()
    loss_of(model(x), y).backward()
    update.step()
"""


@pytest.mark.parametrize("optimizer", [optim.SGD, optim.Adam])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_pool_serves_every_block_of_a_steady_step(size: tuple[int, int, int], optimizer: type) -> None:
    h, batch, d = size
    model = nn.Sequential(nn.Linear(d, h), nn.BatchNorm1d(h), nn.ReLU(), nn.Linear(h, 10))
    update, loss_of = optimizer(model.parameters(), lr=1e-3), nn.CrossEntropyLoss()
    x, y = treadle.randn(batch, d), treadle.tensor([i % 10 for i in range(batch)])

    def steps(n: int) -> dict[str, int]:
        for _ in range(n):
            update.zero_grad()
            loss_of(model(x), y).backward()
            update.step()
        return treadle.memory_stats()

    before, after = steps(10), steps(20)
    assert after["misses"] == before["misses"]
    assert after["hits"] > before["hits"] + 20 * 10
    assert after["live_bytes"] == before["live_bytes"]


def test_a_large_step_holds_each_activation_once() -> None:
    code = """
import treadle
from treadle import nn, optim
h, batch = 256, 8192
activation = batch * h * 4
model = nn.Sequential(nn.Linear(8, h), nn.BatchNorm1d(h), nn.ReLU(), nn.Linear(h, h), nn.BatchNorm1d(h), nn.ReLU(), nn.Linear(h, 10))
update, loss_of = optim.SGD(model.parameters(), lr=1e-3), nn.CrossEntropyLoss()
x, y = treadle.randn(batch, 8), treadle.tensor([i % 10 for i in range(batch)])
for _ in range(3):
    update.zero_grad()
    loss_of(model(x), y).backward()
    update.step()
stats = treadle.memory_stats()
held = (stats["live_bytes"] + stats["cached_bytes"]) / activation
# What two layers save: the inputs of batch norm and of the linear layer behind it.
assert 4 <= held < 4.5, held
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_batches_of_many_lengths_live_in_the_memory_of_the_longest() -> None:
    code = """
import random
import treadle
from treadle import nn, optim
model = nn.Sequential(nn.Linear(8, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 10))
update, loss_of = optim.SGD(model.parameters(), lr=1e-3), nn.CrossEntropyLoss()
lengths = random.Random(0)
def held(steps, least):
    for _ in range(steps):
        batch = lengths.randint(least, 4096)
        x, y = treadle.randn(batch, 8), treadle.tensor([i % 10 for i in range(batch)])
        update.zero_grad()
        loss_of(model(x), y).backward()
        update.step()
    stats = treadle.memory_stats()
    return stats["live_bytes"] + stats["cached_bytes"]
longest, all_lengths = held(3, 4096), held(200, 16)
assert longest > 16 << 20
# In blocks of their own for each of the size classes it would be six times as much.
assert all_lengths < 2 * longest, (all_lengths, longest)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_threads_that_ended_leave_their_counts_and_nothing_else() -> None:
    code = """
import threading, treadle
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4
def threads(n):
    for _ in range(n):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
work = lambda: treadle.ones(4)
threads(2000)
before = resident()
threads(20_000)
assert resident() - before < 600, resident() - before
kept, work = [], lambda: kept.append(treadle.ones(4))
live = treadle.memory_stats()["live_blocks"]
threads(50)
assert treadle.memory_stats()["live_blocks"] == live + 50
kept.clear()
assert treadle.memory_stats()["live_blocks"] == live
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_counters_are_read_while_other_threads_work() -> None:
    code = """
import threading, treadle
treadle.set_num_threads(1)
stop = threading.Event()
def work():
    y = treadle.ones(70_000, requires_grad=True)
    for _ in range(300):
        y = -y
    y = y.sum()
    while not stop.is_set():
        y.backward(retain_graph=True)
threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads:
    thread.start()
caps = {treadle.memory_stats()["cap_bytes"] for _ in range(400_000)}
stop.set()
for thread in threads:
    thread.join()
assert len(caps) == 1, caps
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def test_memory_handed_on_a_hundred_thousand_times_is_freed() -> None:
    code = """
import treadle
x = treadle.zeros(3)
for _ in range(100_000):
    x = treadle.from_dlpack(x)
before = treadle.memory_stats()["live_blocks"]
del x
assert before - treadle.memory_stats()["live_blocks"] > 100_000
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_rows_are_made_one_by_one() -> None:
    rows = iter(treadle.zeros(1).broadcast_to(2**33))
    assert [next(rows).item(), next(rows).item()] == [0, 0]
    assert [row.tolist() for row in treadle.tensor([[1, 2], [3, 4]])] == [[1, 2], [3, 4]]
    with pytest.raises(TypeError, match="len: expected at least one dimension"):
        iter(treadle.tensor(1))


def test_a_leaf_that_is_its_own_gradient_is_freed() -> None:
    before = treadle.memory_stats()["live_blocks"]
    x = treadle.ones(1000, requires_grad=True)
    x.grad = x
    assert x.grad.tolist() == x.tolist()
    del x
    assert treadle.memory_stats()["live_blocks"] == before


def test_a_product_of_many_numbers_is_recorded_in_few_nodes() -> None:
    x = treadle.ones(10_000, requires_grad=True)
    before = treadle.memory_stats()["live_nodes"]
    (grad,) = treadle.grad(x.prod(), [x], create_graph=True)
    assert treadle.memory_stats()["live_nodes"] - before < 20
    (second,) = treadle.grad(grad[0], [x])
    assert second.sum().item() == 9999


def traced() -> bool:
    """Whether strace is there and may trace."""
    return bool(shutil.which("strace")) and subprocess.run(["strace", "-o", "/dev/null", "true"], check=False).returncode == 0


@pytest.mark.skipif(not traced(), reason="strace is missing or may not trace")
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_no_system_call_for_memory_in_a_steady_step(size: tuple[int, int, int], tmp_path: Path) -> None:
    log = tmp_path / "trace"
    # Not mprotect: so the C library grows a worker's heap, the first time that it gets this piece of work. It also trims the main
    # thread's by brk, and grows it again, around buffers of the crate gemm, where large products are its (docs/performance.md, "Memory").
    of_the_heap = "brk," if "avx512" in _core.cpu_features() else ""
    trace = ["strace", "-f", "-o", str(log), "-e", f"trace={of_the_heap}mmap,munmap,mremap,madvise,getppid"]
    subprocess.run([*trace, sys.executable, "-c", STEPS, *map(str, size)], check=True, timeout=120)
    calls = [line.split(None, 1)[1].partition("(")[0] for line in log.read_text().splitlines() if "(" in line]
    assert "mmap" in calls
    first, last = (i for i, name in enumerate(calls) if name == "getppid")
    assert calls[first + 1 : last] == []


#: `within(extra, work)` runs `work` with so many MiB of addresses beyond those in use.
LIMITED = """
import resource, treadle
from treadle import _core
treadle.set_num_threads(1)
MIB = 1 << 20
def within(extra, work):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + extra * MIB, -1))
    try:
        return work()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
treadle.ones(8).sum()
"""
SCARCE = {
    "the cache is given back": """
held = [treadle.zeros(10 * MIB) for _ in range(6)]
del held
assert treadle.memory_stats()["cached_bytes"] > 200 * MIB
within(20, lambda: treadle.zeros(40 * MIB))
""",
    "a smaller cap gives back": """
held = [treadle.zeros(n * MIB) for n in (1, 4, 4)]
del held
_core.set_cache_cap(8 * MIB)
assert 0 < treadle.memory_stats()["cached_bytes"] <= 8 * MIB
""",
    "the limit of addresses counts": """
import subprocess, sys
code = "import treadle; print(treadle.memory_stats()['cap_bytes'])"
limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (2048 * MIB, -1))
cap = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, preexec_fn=limit).stdout)
assert cap == 512 * MIB, cap
""",
    "a list is no TypeError": """
numbers = [1.0] * 3_000_000
for use in (treadle.tensor, lambda given: treadle.ones(3)[given]):
    use([0])
    try:
        within(36, lambda: use(numbers))  # room for the array that NumPy makes of them, 23 MiB, and no other
    except MemoryError:
        continue
    raise SystemExit("expected no memory")
""",
    "gradients stay": """
p = [treadle.zeros(MIB, requires_grad=True) for _ in range(3)]
g = treadle.ones(MIB)
def backward():
    (p[0] + p[1] + p[2]).backward(g)
backward()
held, failed = [x.grad for x in p], 0
for extra in range(64):
    treadle.empty_cache()
    try:
        within(extra, backward)
        break
    except MemoryError:
        failed += 1
    assert all(x.grad is not None and x.grad[0].item() == 1.0 for x in p), extra
assert failed > 5
assert all(x.grad[0].item() == 2.0 for x in p)
""",
}

#: Where everything is shared, so that it must be copied first, a change of all parameters is made in all or in none.
WHOLE = """
from treadle import optim
p = [treadle.zeros(MIB // 4, 4, requires_grad=True) for _ in range(3)]
o = optim.{rule}
def values():
    of = lambda tensors: [x if x is None else x[0, 0].item() for x in tensors]
    return [of(p), of(x.grad for x in p), *map(of, o.param_groups[0]["state"].values())]
def step():
    for x in p:
        x.grad = treadle.ones(4, MIB // 4).T
    return o.step
for change in (step, step, lambda: lambda: optim.clip_grad_norm_(p, 0.5), lambda: lambda: optim.clip_grad_value_(p, 1e-5)):
    for extra in range(96):
        change_now = change()
        held, before = [[x.detach(), x.grad] for x in p] + [o.state_dict()], values()
        treadle.empty_cache()
        try:
            within(extra, change_now)
            break
        except MemoryError:
            assert values() == before, (extra, before, values())
    assert extra > 5
    assert values() != before
"""
SCARCE |= {rule: WHOLE.format(rule=rule) for rule in ("SGD(p, 0.1, momentum=0.9)", "Adam(p)", "RMSprop(p, centered=True)")}


@pytest.mark.skipif(sys.platform != "linux", reason="addresses are not limited here")
@pytest.mark.parametrize("name", SCARCE)
def test_where_memory_is_scarce(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED + SCARCE[name]], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_the_goal_for_peak_memory_is_about_the_step_alone() -> None:
    goal = next(goal for goal in goals.GOALS if goal.what.startswith("peak memory"))
    measured = {"median": {"treadle/default": 1.0, "torch/1/plain": 2.0}}
    about = [row for row in rows.rows() if goal.value(row.to_json() | measured) is not None]
    assert about
    assert all(row.args["alone"] for row in about)
