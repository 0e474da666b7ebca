"""Largest errors of batch norms against float64: columns of N(0, 1) at offsets, and a constant column.

    python -m benches.peers.batch_norm_accuracy

Needs PyTorch; Flax and Keras are shown where they are installed (`pip install flax keras`, Keras on JAX).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable

import numpy as np

import treadle

ROWS, COLUMNS = 4096, 16
OFFSETS = (0.0, 1e3, 1e5, 1e6, 1e7)
Forward = Callable[[np.ndarray], np.ndarray]


def treadle_forward() -> tuple[Forward, float]:
    """The training forward, and its eps."""
    layer = treadle.nn.BatchNorm1d(COLUMNS)
    return lambda x: layer(treadle.tensor(x)).detach().numpy(), layer.eps


def torch_forward() -> tuple[Forward, float]:
    """Likewise."""
    torch = importlib.import_module("torch")
    layer = torch.nn.BatchNorm1d(COLUMNS)
    return lambda x: layer(torch.from_numpy(x)).detach().numpy(), layer.eps


def keras_forward() -> tuple[Forward, float]:
    """Likewise."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    layer = importlib.import_module("keras").layers.BatchNormalization()
    return lambda x: np.asarray(layer(x, training=True)), layer.epsilon


def flax_forward() -> tuple[Forward, float]:
    """Likewise."""
    nnx = importlib.import_module("flax.nnx")
    layer = nnx.BatchNorm(COLUMNS, rngs=nnx.Rngs(0))
    return lambda x: np.asarray(layer(x)), layer.epsilon


LIBRARIES = {"treadle": treadle_forward, "torch": torch_forward, "keras": keras_forward, "flax": flax_forward}


def error(forward: Forward, eps: float, x: np.ndarray) -> float:
    """The largest difference between what a library gives and float64 with the library's own eps."""
    wide = x.astype(np.float64)
    want = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + eps)
    return float(np.abs(forward(x) - want).max())


def main() -> None:
    """Prints the table."""
    noise = np.random.default_rng(0).standard_normal((ROWS, COLUMNS))
    inputs = {f"offset {offset:g}": (noise + offset).astype(np.float32) for offset in OFFSETS}
    inputs["a constant column of 33000.1"] = np.full((ROWS, COLUMNS), 33000.1, np.float32)
    found = {}
    for name, make in LIBRARIES.items():
        try:
            forward, eps = make()
        except ImportError:
            continue
        version = importlib.import_module(name).__version__
        found[f"{name} {version}"] = [f"{error(forward, eps, x):.1e}" for x in inputs.values()]
    print(f"| | {' | '.join(found)} |\n|{'---|' * (len(found) + 1)}")
    for number, name in enumerate(inputs):
        print(f"| {name} | {' | '.join(column[number] for column in found.values())} |")


if __name__ == "__main__":
    main()
