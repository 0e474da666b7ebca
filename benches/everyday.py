"""What the table of `benches.peers` has no row for, beside NumPy and PyTorch on one thread.

Writes, reads, choices, reductions, small products, short rows and views.

    python -m benches.everyday

Microseconds of the thread's processor time, the least of many rounds, so that other work on the machine disturbs little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

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


def write_and_back(leaf: Any, key: Any, value: Any) -> None:
    """target[key] = value, on the tape."""
    target = leaf * 1
    target[key] = value
    target.sum().backward()


def write(target: Any, key: Any, value: Any) -> None:
    """target[key] = value."""
    target[key] = value


def softmax_and_back(x: Any) -> None:
    """Along axis 1."""
    x.softmax(1).sum().backward()


def layer_and_back(layer: Any, batch: Any) -> None:
    """Gradients of its parameters."""
    layer(batch).sum().backward()


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
    planes, points = (make(numbers[: np.prod(shape)].reshape(shape)) for shape in [(16_384, 2, 2), (50_000, 3)])
    steps, mix, turn = (make(numbers[: np.prod(shape)].reshape(shape)) for shape in [(1000, 4, 32), (32, 32), (3, 8)])
    channels, mixer = make(numbers[: 32 * 128 * 3].reshape(32, 128, 3)), make(numbers[: 64 * 128].reshape(64, 128))
    columns, places = make(rng.permutation(10)), make(rng.integers(0, 10, (10_000, 1)))
    tall, blocks = make(numbers[:100_000].reshape(10_000, 10)), make(numbers[:200_000].reshape(5000, 10, 4))
    middle, sixteen, bytewise = make(numbers[:256_000].reshape(4000, 64)), make(numbers[:64_000].reshape(4000, 16)), tall > 0
    pick: Work = {
        "treadle": lambda: tall.gather(places, 1),
        "PyTorch": lambda: tall.gather(1, places),
        "NumPy": lambda: np.take_along_axis(tall, places, 1),
    }[name]
    double, little, afar = make(numbers.astype(np.float64)), x[:10_000], make(numbers * np.float32(2e5))
    little_double, bases = double[:10_000], make(np.abs(numbers.astype(np.float64)) + 0.1)
    single = make(np.abs(numbers) + np.float32(0.1))
    zeros, extreme = make(np.zeros(N, np.uint8)), torch.amax if name == "PyTorch" else type(x).max
    hundreds, double_hundreds, double_narrow = (
        x[:100_000].reshape(1000, 100),
        double[:100_000].reshape(1000, 100),
        double.reshape(100_000, 10),
    )
    variance: Callable[[Any], Any] = partial(torch.var, correction=0) if name == "PyTorch" else type(x).var
    sin, cos = (np.sin, np.cos) if name == "NumPy" else (type(x).sin, type(x).cos)
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
        "sin, 1e4": lambda: sin(little),
        "sin, 1e6": lambda: sin(x),
        "cos, 1e6": lambda: cos(x),
        "sin of up to 1e6, 1e6": lambda: sin(afar),
        "sin, 1e4, float64": lambda: sin(little_double),
        "sin, 1e6, float64": lambda: sin(double),
        "cos, 1e6, float64": lambda: cos(double),
        "x ** y, 1e4, float64": lambda: bases[:10_000] ** little_double,
        "x ** y, 1e6, float64": lambda: bases**double,
        "x ** 1.7, 1e6, float64": lambda: bases**1.7,
        "x ** 1.7, 1e6": lambda: single**1.7,
        "prod, 1e6": lambda: x.prod(),
        "max of the first 1e5 of 1e6, float64": lambda: double[:100_000].max(),
        "sum of the first 1e5 of 1e6, float64": lambda: double[:100_000].sum(),
        "sum of rows, (100000, 10)": lambda: narrow.sum(1),
        "argmax of rows, (100000, 10)": lambda: narrow.argmax(1),
        "argmax of columns, (10, 100000)": lambda: wide.argmax(0),
        "argmax, 1e4": lambda: x[:10_000].argmax(),
        "argmax of rows, (1000, 100)": lambda: hundreds.argmax(1),
        "argmax of rows, (1000, 100), float64": lambda: double_hundreds.argmax(1),
        "argmax of rows, (100000, 10), float64": lambda: double_narrow.argmax(1),
        "x.T.sum(), (1000, 1000)": lambda: square.T.sum(),
        "one of each row by gather, (10000, 10)": pick,
        "x[:, permutation], (10000, 10)": lambda: tall[:, columns],
        "x[:, permutation] of bool, (10000, 10)": lambda: bytewise[:, columns],
        "x[:, 5 columns], (10000, 10)": lambda: tall[:, columns[:5]],
        "any of uint8, 1e6": lambda: zeros.any(),
        "max of rows of uint8, (100000, 10)": lambda: extreme(zeros.reshape(100_000, 10), 1),
        "sum of rows, (100000, 3), float64": lambda: double[:300_000].reshape(100_000, 3).sum(1),
        "var, 1e6, float64": lambda: variance(double),
        "sum over (0, 2), (5000, 10, 4)": lambda: blocks.sum((0, 2)),
        "sum over 1, (5000, 10, 4)": lambda: blocks.sum(1),
        "sum over (1, 2) of x[:, :, 1:3], (5000, 10, 4)": lambda: blocks[:, :, 1:3].sum((1, 2)),
        "sum of rows, (4000, 64)": lambda: middle.sum(1),
        "sum of rows of x[:, ::2], (4000, 16)": lambda: sixteen[:, ::2].sum(1),
        "x.T.any(0), (4000, 250)": lambda: sheet.T.any(0),
        "(1000, 4, 4) @ (1000, 4, 4)": lambda: small @ small,
        "(64, 8, 32) @ (64, 32, 8)": lambda: heads @ keys,
        "(10, 100000) @ (100000, 10)": lambda: long @ thin,
        "(16384, 2, 2) @ (16384, 2, 2)": lambda: planes @ planes,
        "(1000, 4, 32) @ (32, 32)": lambda: steps @ mix,
        "(64, 128) @ (32, 128, 3)": lambda: mixer @ channels,
        "(50000, 3) @ (3, 8)": lambda: points @ turn,
        "(256, 256) @ (256, 256), int64": lambda: integers @ integers,
    }
    found |= views(name, make, numbers) | thin_products(name, make, numbers)
    return found if name == "NumPy" else found | far_out(name, make, numbers) | and_back(name, make, numbers)


def and_back(name: str, make: Callable[[Any], Any], numbers: Any) -> dict[str, Work]:
    """Operations and their gradients."""

    def learned(*shape: int) -> Any:
        """The numbers in a shape, with gradients."""
        leaf = make(numbers[: np.prod(shape)].reshape(shape))
        leaf.requires_grad_()
        return leaf

    found: dict[str, Work] = {}
    for sizes in [(16, 3, 28, 28), (8, 512, 7, 7), (16, 10, 64, 64)]:
        images = make(numbers[: np.prod(sizes)].reshape(sizes))
        found[f"softmax of {sizes}, axis 1"] = partial(images.softmax, 1)
        found[f"softmax of {sizes}, axis 1, forward and back"] = partial(softmax_and_back, learned(*sizes))
    stack, huber = (treadle.stack, functional.huber_loss) if name == "treadle" else (torch.stack, torch.nn.functional.huber_loss)
    steps, other = make(numbers[: 1000 * 4 * 32].reshape(1000, 4, 32)), make(numbers[::-1].copy())
    leaf, boxes, shared, parts, factors = learned(1000, 1000), learned(512, 8, 8), learned(32, 32), learned(4096, 32), learned(N)
    flat, mask = other.reshape(1000, 1000), other > 1
    return found | {
        "(512, 8, 8) @ (512, 8, 8), forward and back": lambda: (boxes @ boxes).sum().backward(),
        "(1000, 4, 32) @ (32, 32), forward and back": lambda: (steps @ shared).sum().backward(),
        "stack of 1000 rows, forward and back": lambda: stack(list(leaf)).sum().backward(),
        "x[:, :16] + x[:, 16:], (4096, 32), forward and back": lambda: (parts[:, :16] + parts[:, 16:]).sum().backward(),
        "x[mask] = 0, 1e6, forward and back": partial(write_and_back, factors, mask, 0.0),
        "x[mask] = values, 1e6, forward and back": partial(write_and_back, factors, mask, other[mask]),
        "prod, forward and back, 1e6": lambda: factors.prod().backward(),
        "Huber loss, forward and back, 1e6": lambda: huber(leaf, flat).backward(),
    }


def thin_products(name: str, make: Callable[[Any], Any], numbers: Any) -> dict[str, Work]:
    """Products of few rows or few columns."""

    def of(*shape: int) -> Any:
        """The numbers in a shape."""
        return make(numbers[: np.prod(shape)].reshape(shape))

    few, table, lines = of(3, 8), of(50_000, 8), of(8, 50_000)
    points, pairs, rows, square, weights, targets = (
        of(50_000, 3),
        of(100_000, 2),
        of(20_000, 10),
        of(2, 2),
        of(10, 1),
        of(20_000, 1),
    )
    two, sixteen, weight, states, hidden = of(2, 784), of(16, 784), of(256, 784), of(8, 256), of(256, 256)
    four, hundred = of(4, 100), of(256, 100)
    found: dict[str, Work] = {
        "(2, 784) @ (256, 784).T": lambda: two @ weight.T,
        "(16, 784) @ (256, 784).T": lambda: sixteen @ weight.T,
        "(8, 256) @ (256, 256).T": lambda: states @ hidden.T,
        "(4, 100) @ (256, 100).T": lambda: four @ hundred.T,
        "x.T @ x, (50000, 3)": lambda: points.T @ points,
        "(100000, 2) @ (2, 2)": lambda: pairs @ square,
        "(20000, 10) @ (10, 1)": lambda: rows @ weights,
        "(20000, 10).T @ (20000, 1)": lambda: rows.T @ targets,
        "(20000, 1) @ (1, 10)": lambda: targets @ weights.T,
        "(8,) @ (50000, 8).T": lambda: few[0] @ table.T,
        "(3, 8) @ (50000, 8).T": lambda: few @ table.T,
        "(8, 50000) @ (50000, 3)": lambda: lines @ points,
        "(50000, 3).T @ (8, 50000).T": lambda: points.T @ lines.T,
    }
    for sizes in [(3, 8), (8, 3), (8, 1)] if name != "NumPy" else []:
        layer: Any = (treadle if name == "treadle" else torch).nn.Linear(*sizes)
        batch = of(50_000, sizes[0])
        found[f"Linear{sizes} of 50,000 rows"] = partial(layer, batch)
        found[f"Linear{sizes} of 50,000 rows, forward and back"] = partial(layer_and_back, layer, batch)
    return found


def far_out(name: str, make: Callable[[Any], Any], numbers: Any) -> dict[str, Work]:
    """Numbers whose exponentials are zero, and moments of parameters that have had no gradient for long."""
    logits = numbers[: 256 * 1024].reshape(256, 1024).copy()
    logits[:, 1:][np.random.default_rng(0).random((256, 1023)) < 0.9] = -np.inf
    masked, unused = make(logits), make(numbers[:200_000])
    unused.requires_grad_()
    optimizer = {"treadle": treadle, "PyTorch": torch}[name].optim.Adam([unused], **({"fused": True} if name == "PyTorch" else {}))
    (unused * 1).sum().backward()
    optimizer.step()
    unused.grad = unused.grad * 0
    for _ in range(1000):
        optimizer.step()
    return {
        "softmax of (256, 1024), nine in ten masked": lambda: masked.softmax(-1),
        "Adam, 200,000 after 1000 steps without gradients": optimizer.step,
    }


def views(name: str, make: Callable[[Any], Any], numbers: Any) -> dict[str, Work]:
    """Short rows and operands that lie in another order."""

    def of(*shape: int) -> Any:
        """The numbers in a shape."""
        return make(numbers[: np.prod(shape)].reshape(shape))

    row, gains, column, pair, one = of(4096, 16), of(16), of(8192, 1), of(32768, 2), of(32768, 1)
    four, half, maps, bias = of(8192, 4), of(4096, 32), of(64, 8, 16, 16), of(64, 1, 1, 16)
    left, right, tall, square = of(256, 1, 3), of(1, 256, 3), of(3900, 256), of(256, 256)
    heads, images, mask = of(32, 64, 8, 8), of(32, 28, 28), make(numbers[:16384].reshape(16384, 1) > 0)
    narrow, blocks, wide = [of(1024, 8) for _ in range(4)], [of(32, 12, 12, 8) for _ in range(9)], of(16384, 4)
    rows, states, gates = [of(16, 32) for _ in range(50)], [of(32, 64) for _ in range(20)], [of(64, 128), of(64, 64)]
    attended, sheets = of(32, 4, 50, 16), [of(1000, 100) for _ in range(3)]
    concatenate = torch.cat if name == "PyTorch" else {"treadle": treadle, "NumPy": np}[name].concatenate
    stack = {"treadle": treadle, "PyTorch": torch, "NumPy": np}[name].stack
    where = {"treadle": treadle.ops, "PyTorch": torch, "NumPy": np}[name].where
    zero: Any = np.float32(0) if name == "NumPy" else 0.0
    return {
        "(4096, 16) * (16,)": lambda: row * gains,
        "(8192, 4) - (8192, 1)": lambda: four - column,
        "(32768, 2) - (32768, 1)": lambda: pair - one,
        "(64, 8, 16, 16) + (64, 1, 1, 16)": lambda: maps + bias,
        "(256, 1, 3) - (1, 256, 3)": lambda: left - right,
        "x[:, :16] + x[:, 16:], (4096, 32)": lambda: half[:, :16] + half[:, 16:],
        "where of (16384, 1), (16384, 4)": lambda: where(mask, wide, zero),
        "x.T + 1, (3900, 256)": lambda: tall.T + 1,
        "x.T * x.T, (3900, 256)": lambda: tall.T * tall.T,
        "x + x.T, (256, 256)": lambda: square + square.T,
        "x.swapaxes(1, 2) * 0.35, (32, 64, 8, 8)": lambda: heads.swapaxes(1, 2) * 0.35,
        "images mirrored, + 0, (32, 28, 28)": lambda: (images.flip((2,)) if name == "PyTorch" else images[:, :, ::-1]) + 0,
        "concatenate 4 of (1024, 8), last axis": lambda: concatenate(narrow, -1),
        "concatenate 9 of (32, 12, 12, 8), last axis": lambda: concatenate(blocks, -1),
        "stack 50 of (16, 32), axis 1": lambda: stack(rows, 1),
        "stack 20 of (32, 64), last axis": lambda: stack(states, -1),
        "stack 100 of (32, 64)": lambda: stack(states * 5, 0),
        "stack 2 of (1000, 100), last axis": lambda: stack(sheets[:2], -1),
        "stack 3 of (1000, 100), last axis": lambda: stack(sheets, -1),
        "concatenate (64, 128) and (64, 64), axis 1": lambda: concatenate(gates, 1),
        "heads (32, 4, 50, 16) back to (32, 50, 64)": lambda: attended.swapaxes(1, 2).reshape(32, 50, 64),
    }


def main() -> None:
    """Prints the table."""
    treadle.set_num_threads(1)
    torch.set_num_threads(1)
    threadpool_limits(1)  # NumPy's products
    libraries = {name: works(name) for name in ("treadle", "PyTorch", "NumPy")}
    print("| operation |" + "".join(f" {name} |" for name in libraries) + "\n|---|" + "---|" * len(libraries))
    for operation in libraries["treadle"]:
        cells = [f"{microseconds(of[operation]):.1f}" if operation in of else "–" for of in libraries.values()]
        print(f"| {operation} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
