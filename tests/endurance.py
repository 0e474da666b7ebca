"""Trains a small network for very many steps and says what memory it takes: python -m tests.endurance --steps 1000000"""

from __future__ import annotations

import argparse
import sys
import time

import treadle
from treadle import nn, optim

#: Bytes that resident memory may grow by after the first steps, however many follow.
ROOM = 2 * 2**20
WARM_UP = 2_000


def resident() -> int:
    """Resident memory of this process in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def grown(steps: int, report: int) -> int:
    """By how many bytes memory grows over so many steps; a line is printed after every `report`."""
    treadle.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 4))
    optimizer, loss_of = optim.Adam(model.parameters(), lr=1e-2), nn.CrossEntropyLoss()
    x, y = treadle.randn(32, 8), treadle.randint(0, 4, (32,))
    before, start = 0, time.perf_counter()
    for i in range(1, WARM_UP + steps + 1):
        optimizer.zero_grad()
        loss_of(model(x), y).backward()
        optimizer.step()
        if i == WARM_UP:
            before = resident()
        elif i > WARM_UP and (i - WARM_UP) % report == 0:
            seconds, now = time.perf_counter() - start, resident()
            print(
                f"{i - WARM_UP:>9} steps {now / 2**20:8.2f} MiB resident, {now - before:>8} bytes more, {seconds:7.1f} s",
                flush=True,
            )
    return resident() - before


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.endurance")
    parser.add_argument("--steps", type=int, default=1_000_000)
    options = parser.parse_args()
    growth = grown(options.steps, max(1, options.steps // 10))
    nodes = treadle.memory_stats()["live_nodes"]
    print(f"{growth} bytes more after {options.steps} steps, {nodes} live nodes")
    return 0 if growth < ROOM and nodes == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
