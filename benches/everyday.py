"""What the table of `benches.peers` has no row for, beside NumPy and PyTorch on one thread.

Writes, reads, choices, reductions and small products.

    python -m benches.everyday

Microseconds of the thread's processor time, the least of many rounds, so that other work on the machine disturbs little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import treadle
from treadle.nn import functional

N = 1_000_000
Work = Callable[[], Any]


def microseconds(work: Work) -> float:
    """Of one call."""
    work()
    best = float("inf")
    for _ in range(15):
        started, count = time.thread_time(), 0
        while time.thread_time() - started < 0.01:
            work()
            count += 1
        best = min(best, (time.thread_time() - started) / count)
    return best * 1e6


def write(target: Any, key: Any, value: Any) -> None:
    """target[key] = value."""
    target[key] = value


def works(name: str) -> dict[str, Work]:
    """The operations in one library, on the same numbers."""
    make = {"treadle": treadle.tensor, "PyTorch": torch.tensor, "NumPy": np.array}[name]
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal(N).astype(np.float32)
    x, y, mask = make(numbers), make(numbers[::-1].copy()), make(numbers > 0)
    three, many, buffer = make([1, 5, 77]), make(rng.integers(0, N, N)), make(np.zeros((10_000, 64), np.float32))
    rows, new = make(rng.integers(0, 10_000, 32)), make(numbers[: 32 * 64].reshape(32, 64))
    small, heads, keys = (make(numbers[: np.prod(shape)].reshape(shape)) for shape in [(1000, 4, 4), (64, 8, 32), (64, 32, 8)])
    long, integers = make(numbers.reshape(10, 100_000)), make(rng.integers(-9, 9, (256, 256)))
    thin = make(numbers.reshape(100_000, 10))
    few, weight = make(numbers[: 2 * 784].reshape(2, 784)), make(numbers[: 256 * 784].reshape(256, 784))
    columns, places = make(rng.permutation(10)), make(rng.integers(0, 10, (10_000, 1)))
    tall, blocks = make(numbers[:100_000].reshape(10_000, 10)), make(numbers[:200_000].reshape(5000, 10, 4))
    middle, sixteen = make(numbers[:256_000].reshape(4000, 64)), make(numbers[:64_000].reshape(4000, 16))
    pick: Work = {
        "treadle": lambda: tall.gather(places, 1),
        "PyTorch": lambda: tall.gather(1, places),
        "NumPy": lambda: np.take_along_axis(tall, places, 1),
    }[name]
    narrow, wide, square, sheet = x.reshape(100_000, 10), x.reshape(10, 100_000), x.reshape(1000, 1000), x.reshape(4000, 250)
    found: dict[str, Work] = {
        "3 places of 1e6 = 1": lambda: write(y, three, 1.0),
        "32 rows of (10000, 64) = w": lambda: write(buffer, rows, new),
        "x[mask] = 0, 1e6": lambda: write(y, mask, 0.0),
        "x[indices], 1e6": lambda: x[many],
        "32 rows of 63 columns of (10000, 64)": lambda: buffer[:, 1:][rows],
        "x[mask], 1e6": lambda: x[mask],
        "where, 1e6": lambda: {"treadle": treadle.ops, "PyTorch": torch, "NumPy": np}[name].where(mask, x, y),
        "x ** 3, 1e6": lambda: x**3,
        "(2, 784) @ (256, 784).T": lambda: few @ weight.T,
        "prod, 1e6": lambda: x.prod(),
        "sum of rows, (100000, 10)": lambda: narrow.sum(1),
        "argmax of rows, (100000, 10)": lambda: narrow.argmax(1),
        "argmax of columns, (10, 100000)": lambda: wide.argmax(0),
        "argmax, 1e4": lambda: x[:10_000].argmax(),
        "x.T.sum(), (1000, 1000)": lambda: square.T.sum(),
        "one of each row by gather, (10000, 10)": pick,
        "x[:, permutation], (10000, 10)": lambda: tall[:, columns],
        "sum over (0, 2), (5000, 10, 4)": lambda: blocks.sum((0, 2)),
        "sum over 1, (5000, 10, 4)": lambda: blocks.sum(1),
        "sum over (1, 2) of x[:, :, 1:3], (5000, 10, 4)": lambda: blocks[:, :, 1:3].sum((1, 2)),
        "sum of rows, (4000, 64)": lambda: middle.sum(1),
        "sum of rows of x[:, ::2], (4000, 16)": lambda: sixteen[:, ::2].sum(1),
        "x.T.any(0), (4000, 250)": lambda: sheet.T.any(0),
        "(1000, 4, 4) @ (1000, 4, 4)": lambda: small @ small,
        "(64, 8, 32) @ (64, 32, 8)": lambda: heads @ keys,
        "(10, 100000) @ (100000, 10)": lambda: long @ thin,
        "(256, 256) @ (256, 256), int64": lambda: integers @ integers,
    }
    if name == "NumPy":
        return found
    leaf = make(numbers.reshape(1000, 1000))
    leaf.requires_grad_()
    stack, huber = (treadle.stack, functional.huber_loss) if name == "treadle" else (torch.stack, torch.nn.functional.huber_loss)
    flat, boxes = y.reshape(1000, 1000), make(numbers[: 512 * 64].reshape(512, 8, 8))
    boxes.requires_grad_()
    found["(512, 8, 8) @ (512, 8, 8), forward and back"] = lambda: (boxes @ boxes).sum().backward()
    found["stack of 1000 rows, forward and back"] = lambda: stack(list(leaf)).sum().backward()
    factors = make(numbers)
    factors.requires_grad_()
    found["prod, forward and back, 1e6"] = lambda: factors.prod().backward()
    found["Huber loss, forward and back, 1e6"] = lambda: huber(leaf, flat).backward()
    return found


def main() -> None:
    """Prints the table."""
    treadle.set_num_threads(1)
    torch.set_num_threads(1)
    libraries = {name: works(name) for name in ("treadle", "PyTorch", "NumPy")}
    print("| operation |" + "".join(f" {name} |" for name in libraries) + "\n|---|" + "---|" * len(libraries))
    for operation in libraries["treadle"]:
        cells = [f"{microseconds(of[operation]):.1f}" if operation in of else "–" for of in libraries.values()]
        print(f"| {operation} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
