"""Steps of training with more threads than processors, beside a busy process: python -m benches.oversubscribed"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import treadle
from benches.anomaly import step
from treadle import models, optim

THREADS = 8
STEPS = 300
NETWORKS = [(32, 16, 16), (64, 32, 64), (128, 64, 784), (256, 128, 784)]


@contextmanager
def busy() -> Iterator[None]:
    """Another process that never waits."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def times(hidden: int, batch: int, inputs: int) -> dict[int, list[float]]:
    """Microseconds of single steps with one thread and with many, in turns of ten, so that both meet the same minutes."""
    model = models.MLPResNet(inputs, hidden_dim=hidden)
    adam = optim.Adam(model.parameters(), lr=1e-3)
    x, y = treadle.randn(batch, inputs), treadle.tensor([i % 10 for i in range(batch)])
    found: dict[int, list[float]] = {1: [], THREADS: []}
    for turn in range(2 * STEPS // 10 + 2):
        threads = (1, THREADS)[turn % 2]
        treadle.set_num_threads(threads)
        # The first builds the pool.
        step(model, adam, x, y)
        for _ in range(10 if turn > 1 else 0):
            start = time.perf_counter()
            step(model, adam, x, y)
            found[threads].append((time.perf_counter() - start) * 1e6)
    return found


def main() -> None:
    print(f"{os.cpu_count()} processors, one of them wanted by another process; µs of a step, median (95th percentile)")
    print(f"{'hidden, batch, inputs':>24} {'1 thread':>18} {f'{THREADS} threads':>18} {'median ratio':>13}")
    with busy():
        for network in NETWORKS:
            found = times(*network)
            medians = {n: statistics.median(t) for n, t in found.items()}
            cells = [f"{medians[n]:.0f} ({sorted(t)[int(0.95 * len(t))]:.0f})" for n, t in found.items()]
            print(f"{network!s:>24} {cells[0]:>18} {cells[1]:>18} {medians[THREADS] / medians[1]:13.2f}")


if __name__ == "__main__":
    main()
