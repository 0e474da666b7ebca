"""What is measured: every row is a piece of work that each library does in its own words."""

from __future__ import annotations

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
MATMUL = [("nn", 64, 784, 100), ("nt", 64, 100, 784), ("tn", 784, 64, 100), ("nn", 256, 256, 256), ("nn", 1024, 1024, 1024)]


@dataclass(frozen=True)
class Row:
    """One line of the table: the group it stands in, its name, and what the work is built from."""

    group: str
    name: str
    work: str
    args: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As a dict."""
        return asdict(self)


def _steps() -> Iterator[Row]:
    for norm in (True, False):
        for h, batch, d in MLP:
            for optimizer in ("sgd", "adam"):
                label = "with" if norm else "without"
                name = f"({h}, {batch}, {d}) {optimizer}"
                args = {"h": h, "batch": batch, "d": d, "optimizer": optimizer, "norm": norm}
                yield Row(f"training step, {label} BatchNorm1d: (hidden, batch, inputs)", name, "step", args)


def _batch_norms() -> Iterator[Row]:
    for shape in BATCH_NORM:
        for work in ("train", "backward", "eval"):
            label = {"train": "forward", "backward": "forward + backward", "eval": "eval forward"}[work]
            yield Row("BatchNorm1d", f"{shape} {label}", "batch_norm", {"shape": shape, "mode": work})


def _elementwise() -> Iterator[Row]:
    for kind in ("add", "exp", "tanh", "gelu", "chain", "sum", "sum columns", "softmax", "layer norm", "cross entropy"):
        for size in (100, 10_000, 1_000_000, 10_000_000):
            yield Row("arrays (float32)", f"{kind}, {size:,} elements", "array", {"kind": kind, "size": size})


def rows() -> list[Row]:
    """All rows, in the order of the table."""
    out = list(_steps())
    for h, d in ((64, 64), (256, 784)):
        for batch in (1, 64):
            args = {"h": h, "d": d, "batch": batch}
            out.append(Row("inference", f"hidden {h}, inputs {d}, batch {batch}", "inference", args))
    out += _batch_norms()
    out += [
        Row("siblings of BatchNorm1d", f"{kind} {shape} forward + backward", "sibling", {"kind": kind, "shape": shape})
        for kind, shape in SIBLINGS
    ]
    out += _elementwise()
    out += [
        Row("matmul (float32)", f"{kind.upper()} {m}x{k}x{n}", "matmul", {"kind": kind, "m": m, "k": k, "n": n})
        for kind, m, k, n in MATMUL
    ]
    out += [Row("data", f"epoch of {n:,} rows, batch 32", "epoch", {"n": n}) for n in (10_000, 60_000)]
    out.append(Row("data", "epoch of the main job, 60,000 images, batch 100, Adam", "main_job", {}))
    for batch, h, depth in ((16, 64, 2), (256, 64, 2), (64, 32, 2), (64, 512, 2), (64, 64, 1), (64, 64, 8)):
        args = {"h": h, "batch": batch, "d": 64, "optimizer": "adam", "norm": True, "depth": depth}
        out.append(Row("growth of a step (Adam, BatchNorm1d)", f"batch {batch}, width {h}, depth {depth}", "step", args))
    return out
