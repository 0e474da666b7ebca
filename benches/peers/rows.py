"""What is measured: every row is a piece of work that each library does in its own words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

MLP = [(32, 16, 16), (64, 32, 64), (128, 64, 784), (256, 128, 784), (512, 256, 784), (1024, 512, 784)]
BATCH_NORM = [(32, 64), (64, 128), (128, 256), (1024, 512), (8192, 512), (65536, 64), (64, 16384), (4096, 4096), (64, 64, 256)]
SIBLINGS = [
    ("BatchNorm2d", (32, 16, 28, 28)),
    ("BatchNorm2d", (64, 64, 8, 8)),
    ("LayerNorm", (64, 64)),
    ("LayerNorm", (1024, 512)),
    ("LayerNorm", (10000, 100)),
    ("GroupNorm", (64, 64)),
    ("GroupNorm", (64, 32, 256)),
    ("InstanceNorm1d", (64, 32, 256)),
    ("RMSNorm", (64, 64)),
    ("RMSNorm", (1024, 512)),
]
# (m, k, n): the layers of an MLP and squares.
MATMUL = [(64, 784, 100), (64, 100, 784), (784, 64, 100), (256, 784, 512), *((n, n, n) for n in (64, 256, 512, 1024))]
SIZES = (100, 10_000, 1_000_000, 10_000_000, 100_000_000)
# Float32 numbers that one element of an array costs to read and write: "chain" counts each of its five operations.
TRAFFIC = {"add": 3, "exp": 2, "tanh": 2, "gelu": 2, "chain": 11, "sum": 1, "sum columns": 1, "softmax": 2, "layer norm": 2}
TRAFFIC |= {"cross entropy": 1}
# Batch norm reads its input twice and writes once; backward reads four times and writes once.
BATCH_NORM_TRAFFIC = {"train": 3, "backward": 8, "eval": 2}
# (batch, width, depth)
BASE = (64, 64, 2)
GROWTH = [BASE, *((batch, 64, 2) for batch in (16, 256, 1024, 4096)), *((64, width, 2) for width in (32, 128, 256, 512))]
GROWTH += [(64, 64, depth) for depth in (1, 4, 8)]
PEAK = [(128, 64, 784), (512, 256, 784), (1024, 512, 784), (256, 8192, 784)]


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table.

    Attributes:
        group: Of rows, which has a table of its own.
        name: Of the row.
        work: The function of a library's module that builds the work.
        args: Its arguments.
        unit: "s" or "B".
        fresh: Whether every measurement is a new process, by `footprint`.
        size: Elements of the arrays, where bandwidth bounds the work.
        bytes: That the work must read and write.
        flops: Multiplications and additions of its matrix products.
    """

    group: str
    name: str
    work: str
    args: dict[str, Any]
    unit: str = "s"
    fresh: bool = False
    size: int = 0
    bytes: int = 0
    flops: int = 0

    def to_json(self) -> dict[str, Any]:
        """As a dict."""
        return asdict(self)


def step_row(group: str, name: str, args: dict[str, Any]) -> Row:
    """A training step; its products are one forward and two backward, but for the input, which wants no gradient."""
    h, batch, d, depth = args["h"], args["batch"], args["d"], args.get("depth", 2)
    layers = [(d, h), *[(h, h)] * (depth - 1), (h, 10)]
    flops = sum(2 * batch * n * m * (2 if i == 0 else 3) for i, (n, m) in enumerate(layers))
    return Row(group, name, "step", args, flops=flops)


def _steps() -> Iterator[Row]:
    for norm in (True, False):
        for h, batch, d in MLP:
            for optimizer in ("sgd", "adam"):
                label = "with" if norm else "without"
                args = {"h": h, "batch": batch, "d": d, "optimizer": optimizer, "norm": norm}
                group = f"training step, {label} BatchNorm1d: (hidden, batch, inputs)"
                yield step_row(group, f"({h}, {batch}, {d}) {optimizer}", args)


def _inference() -> Iterator[Row]:
    for h, d in ((64, 64), (256, 784)):
        for batch in (1, 64):
            args = {"h": h, "d": d, "batch": batch}
            yield Row("inference", f"hidden {h}, inputs {d}, batch {batch}", "inference", args)


def _batch_norms() -> Iterator[Row]:
    for shape in BATCH_NORM:
        for work in ("train", "backward", "eval"):
            label = {"train": "forward", "backward": "forward + backward", "eval": "eval forward"}[work]
            size, args = math.prod(shape), {"shape": shape, "mode": work}
            traffic = 4 * size * BATCH_NORM_TRAFFIC[work]
            yield Row("BatchNorm1d", f"{shape} {label}", "batch_norm", args, size=size, bytes=traffic)


def _siblings() -> Iterator[Row]:
    for kind, shape in SIBLINGS:
        name = f"{kind} {shape} forward + backward"
        yield Row("siblings of BatchNorm1d", name, "sibling", {"kind": kind, "shape": shape})


def _arrays() -> Iterator[Row]:
    for kind, traffic in TRAFFIC.items():
        for size in SIZES:
            name, args = f"{kind}, {size:,} elements", {"kind": kind, "size": size}
            yield Row("arrays (float32)", name, "array", args, size=size, bytes=4 * size * traffic)


def _matmuls() -> Iterator[Row]:
    for m, k, n in MATMUL:
        for kind in ("nn", "nt", "tn"):
            args = {"kind": kind, "m": m, "k": k, "n": n}
            yield Row("matmul (float32)", f"{kind.upper()} {m}x{k}x{n}", "matmul", args, flops=2 * m * k * n)


def _data() -> Iterator[Row]:
    for n in (10_000, 60_000):
        yield Row("data", f"epoch of {n:,} rows, batch 32", "epoch", {"n": n})
    yield Row("data", "epoch of the main job, 60,000 images, batch 100, Adam", "main_job", {})


def _growth() -> Iterator[Row]:
    for batch, h, depth in GROWTH:
        args = {"h": h, "batch": batch, "d": 64, "optimizer": "adam", "norm": True, "depth": depth}
        yield step_row("growth of a step (Adam, BatchNorm1d)", f"batch {batch}, width {h}, depth {depth}", args)


def _footprint() -> Iterator[Row]:
    group = "footprint"
    args = {"layers": True, "after_numpy": False}
    yield Row(group, "import with layers", "import_seconds", args, fresh=True)
    yield Row(group, "import with layers, NumPy loaded before", "import_seconds", args | {"after_numpy": True}, fresh=True)
    args = {"layers": False, "after_numpy": True}
    yield Row(group, "import treadle alone, NumPy loaded before", "import_seconds", args, fresh=True)
    yield Row(group, "resident memory after import with layers", "resident", {}, unit="B", fresh=True)
    yield Row(group, "wheel", "wheel", {}, unit="B", fresh=True)
    yield Row(group, "installed, alone", "installed", {"needs": False}, unit="B", fresh=True)
    yield Row(group, "installed, with what it needs", "installed", {"needs": True}, unit="B", fresh=True)


def _peak_memory() -> Iterator[Row]:
    for what, alone in (("a training step", True), ("a process that trains, over its import", False)):
        for h, batch, d in PEAK:
            for optimizer in ("sgd", "adam"):
                args = {"h": h, "batch": batch, "d": d, "optimizer": optimizer, "norm": True, "alone": alone}
                group = f"peak memory of {what}: (hidden, batch, inputs)"
                yield Row(group, f"({h}, {batch}, {d}) {optimizer}", "peak_memory", args, unit="B", fresh=True)


def rows() -> list[Row]:
    """All rows, in the order of the table."""
    makers = (_steps, _inference, _batch_norms, _siblings, _arrays, _matmuls, _data, _growth, _footprint, _peak_memory)
    return [row for make in makers for row in make()]
