"""What only a process of its own can show: forks, signals, memory, imports, and bytes that never differ."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import treadle

ROOT = Path(__file__).parents[2]
SMALL = """
import treadle
from treadle import nn, optim
treadle.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 4))
optimizer, loss_of = optim.Adam(model.parameters(), lr=1e-2), nn.CrossEntropyLoss()
x, y = treadle.randn(32, 8), treadle.randint(0, 4, (32,))
def step():
    optimizer.zero_grad()
    loss_of(model(x), y).backward()
    optimizer.step()
"""


def run(code: str, timeout: float = 120) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_memory_is_flat_over_100_000_steps() -> None:
    """The short form of python -m tests.endurance --steps 1000000."""
    command = [sys.executable, "-m", "tests.endurance", "--steps", "100000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_training_run_has_the_same_bytes_at_any_number_of_threads(tmp_path: Path) -> None:
    code = """
import sys, treadle
from treadle import models, nn, optim
treadle.set_num_threads(int(sys.argv[1]))
treadle.manual_seed(7)
model = models.MLPResNet(256, hidden_dim=256)
optimizer, loss_of = optim.AdamW(model.parameters(), lr=1e-3), nn.CrossEntropyLoss()
x, y = treadle.randn(512, 256), treadle.randint(0, 10, (512,))
for i in range(200):
    rows = slice(i % 4 * 128, i % 4 * 128 + 128)
    optimizer.zero_grad()
    loss_of(model(x[rows]), y[rows]).backward()
    optimizer.step()
treadle.save(sys.argv[2], model)
"""
    files = []
    for i, threads in enumerate((1, 2, 3, 8, 2)):
        path = tmp_path / f"{i}.safetensors"
        subprocess.run([sys.executable, "-c", code, str(threads), str(path)], check=True, timeout=120)
        files.append(path.read_bytes())
    assert len(files[0]) > 500_000
    assert all(data == files[0] for data in files)


def big() -> treadle.Tensor:
    """Work that is shared between threads."""
    treadle.manual_seed(1)
    x = treadle.randn(600, 600)
    return (x @ x).tanh().sum()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_computes_the_same() -> None:
    want = big().item()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, str(big().item()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    deadline = time.monotonic() + 60
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            pytest.fail("the child hangs")
        time.sleep(0.01)
    assert float(os.read(reader, 100)) == want


def test_a_child_forked_amid_shared_work_does_not_wait_for_threads_it_lacks() -> None:
    code = """
import os, signal, time, treadle
treadle.set_num_threads(2)
a, child = treadle.rand(1500, 1500), None
def fork(*_):
    global child
    child = os.fork()
signal.signal(signal.SIGALRM, fork)
while child is None:
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        a @ a
    except RuntimeError as error:
        assert child == 0 and "forked amid work" in str(error), error
if child == 0:
    assert (a[:64] @ a).shape == (64, 1500)
    os._exit(0)
for _ in range(300):
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        break
    time.sleep(0.1)
else:
    os.kill(child, signal.SIGKILL)
assert (pid, status) == (child, 0)
"""
    for _ in range(3):
        run(code)


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="processors are not chosen here"
)
def test_helpers_keep_off_the_processor_of_their_caller() -> None:
    code = """
import os, time, treadle
from pathlib import Path
treadle.set_num_threads(2)
def missing():
    treadle.rand(2_000_000).exp()
    names = {task: (task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}
    helpers = [int(task.name) for task, name in names.items() if name.startswith("treadle-")]
    return [len(os.sched_getaffinity(0)) - len(os.sched_getaffinity(helper)) for helper in helpers]
tries = iter(range(1000))
while missing() != [1] and next(tries, None) is not None:
    time.sleep(0.01)  # on a busy machine a helper begins late
print(missing())
"""
    assert run(code).strip() == "[1]"


def test_a_fork_before_any_work_leaves_both_with_threads_of_their_own() -> None:
    code = """
import os, treadle
treadle.set_num_threads(2)
def work():
    x = treadle.randn(600, 600, generator=treadle.Generator(1))
    return (x @ x).tanh().sum().item()
reader, writer = os.pipe()
child = os.fork()
value = work()
threads = [name for name in map(open, (f"/proc/self/task/{t}/comm" for t in os.listdir("/proc/self/task"))) if "treadle" in name.read()]
assert threads, "expected a worker"
if child == 0:
    os.write(writer, str(value).encode())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert float(os.read(reader, 100)) == value
"""
    run(code)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(method: str, tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(f"""
import multiprocessing, treadle
def work(seed):
    g = treadle.Generator(seed)
    x = treadle.randn(300, 300, generator=g)
    return (x @ x).sum().item()
if __name__ == "__main__":
    alone = [work(s) for s in range(4)]
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        assert pool.map(work, range(4)) == alone
    print("same")
""")
    command = [sys.executable, "-W", "ignore", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "same", done.stderr


BUSY = {
    "drawing": ("", "treadle.randn(20_000_000)", "treadle.rand(3)"),
    "adding to a gradient": (
        "w, g = treadle.zeros(20_000_000, requires_grad=True), treadle.ones(20_000_000)",
        "(w * 1.0).backward(g)",
        "w.grad = None; (w * 1.0).backward(g)",
    ),
    "assigning": (
        "x = treadle.zeros(1000); many = treadle.zeros(10_000_000, dtype='int64')",
        "x[many] = 1.0",
        "x[0] = 2.0; assert x[0] == 2",
    ),
    "predicting": (
        "from treadle import nn; from treadle.training import predict\n"
        "x, model = treadle.ones(2, 2), nn.Sequential(*[nn.Identity() for _ in range(300)])",
        "predict(model, x)",
        "predict(nn.Linear(2, 2), x); assert all(inner.training for inner in model.modules())",
    ),
    "looking for anomalies": (
        "from treadle.nn import calls",
        "with treadle.detect_anomaly(): time.sleep(0.001)",
        "assert calls.named is None\n        with treadle.detect_anomaly(): assert calls.named is not None",
    ),
}


@pytest.mark.parametrize("name", BUSY)
def test_a_child_forked_while_another_thread_is_busy_goes_on(name: str) -> None:
    before, busy, child = BUSY[name]
    code = f"""
import os, threading, time, treadle
{before}
stop = threading.Event()
def work():
    while not stop.is_set():
        {busy}
thread = threading.Thread(target=work)
thread.start()
time.sleep(0.3)
for i in range(8):
    time.sleep(0.017)
    child = os.fork()
    if child == 0:
        {child}
        os._exit(0)
    deadline = time.monotonic() + 20
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os._exit(1)
        time.sleep(0.005)
    if ended[1]:
        os._exit(2)
stop.set()
thread.join()
"""
    run(code)


def test_a_child_forked_inside_a_block_is_inside_it() -> None:
    code = """
import os, treadle
from treadle import nn
from treadle.nn import calls
from treadle.training import predict
class Forking(nn.Module):
    def forward(self, x):
        global child
        child = os.fork()
        assert not self.training
        return x
model = Forking()
with treadle.detect_anomaly():
    predict(model, treadle.ones(2, 2))
    assert model.training and calls.named is not None
assert calls.named is None
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    run(code)


def test_an_anomaly_in_a_draw_holds_up_no_other_thread() -> None:
    code = """
import faulthandler, threading, treadle
from treadle import nn
faulthandler.dump_traceback_later(60, exit=True)
x, layer, done = treadle.ones(3_000_000) * float("inf"), nn.Dropout(0.5), threading.Event()
def watch():
    for _ in range(60):
        try:
            with treadle.detect_anomaly():
                layer(x)
        except FloatingPointError:
            pass
    done.set()
threading.Thread(target=watch).start()
while not done.is_set():
    treadle.rand(3)
"""
    run(code)


def test_ctrl_c_stops_a_loop() -> None:
    code = (
        SMALL
        + """
print("ready", flush=True)
try:
    while True:
        step()
except KeyboardInterrupt:
    print("stopped", flush=True)
"""
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[0] == "stopped\n"
        assert process.returncode == 0


def test_the_interpreter_ends_while_threads_compute() -> None:
    code = f"""
import sys, threading, time
sys.path[:] = {sys.path!r}
import treadle
x = treadle.randn(700, 700, requires_grad=True)
def work():
    while True:
        (x @ x).sum().backward()
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
"""
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


def test_import_is_light() -> None:
    code = """
import sys, numpy
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
before = resident()
import treadle
grown = resident() - before
threads = len(__import__("os").listdir("/proc/self/task"))
import os
heavy = [m for m in ("tqdm", "matplotlib", "sklearn", "scipy", "pandas") if m in sys.modules]
print(grown, heavy)
"""
    grown, heavy = run(code).split(" ", 1)
    assert int(grown) < 10 * 2**20
    assert heavy.strip() == "[]"


def test_import_loads_no_more_than_the_core_and_grad_mode() -> None:
    loaded = run("import sys, treadle; print(*sorted(m for m in sys.modules if m.partition('.')[0] in ('treadle', 'numpy')))")
    assert loaded.split() == ["treadle", "treadle._core", "treadle.autograd"]
    assert run("import treadle; print(treadle.detect_anomaly.__module__, treadle.autograd.gradcheck.__module__)").split() == [
        "treadle.anomaly",
        "treadle.gradcheck",
    ]


def test_the_version_comes_from_one_place() -> None:
    text = (ROOT / "Cargo.toml").read_text()
    assert f'version = "{treadle.__version__}"' in text


def test_a_dropped_graph_of_a_million_operations() -> None:
    y = treadle.ones(2, requires_grad=True)
    before = treadle.memory_stats()["live_nodes"]
    for _ in range(1_000_000):
        y = -y
    assert treadle.memory_stats()["live_nodes"] == before + 1_000_000
    del y
    assert treadle.memory_stats()["live_nodes"] == before
