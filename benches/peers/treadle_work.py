"""The work in treadle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import treadle
from benches.peers.inputs import normal
from benches.peers.layers import norm_layer
from treadle import nn, optim
from treadle.cli.data import Rows, loader
from treadle.data import DataLoader, TensorDataset
from treadle.models import MLPResNet

Work = Callable[[], Any]


def threads(n: int | None) -> None:
    """Sets the number of threads; None leaves the default."""
    if n is not None:
        treadle.set_num_threads(n)


def tensor(shape: tuple[int, ...], seed: int = 0) -> treadle.Tensor:
    """Normally distributed float32, the same in every library."""
    return treadle.tensor(normal(shape, seed))


def release() -> None:
    """Gives the memory that the pool keeps back to the system."""
    treadle.empty_cache()


def mlp(d: int, h: int, norm: bool, depth: int) -> nn.Sequential:
    """d → h → … → h → 10."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(h if i else d, h), *([nn.BatchNorm1d(h)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(h, 10))


def step(h: int, batch: int, d: int, optimizer: str, norm: bool, depth: int = 2, variant: str = "") -> Work:
    """One training step."""
    model, loss_of = mlp(d, h, norm, depth), nn.CrossEntropyLoss()
    x, y = tensor((batch, d)), treadle.tensor(np.arange(batch) % 10)
    kind = optim.SGD if optimizer == "sgd" else optim.Adam
    update = kind(model.parameters(), lr=1e-3)

    def work() -> None:
        update.zero_grad()
        loss_of(model(x), y).backward()
        update.step()

    return work


def inference(h: int, d: int, batch: int) -> Work:
    """A forward in evaluation."""
    model, x = mlp(d, h, True, 2).eval(), tensor((batch, d))

    @treadle.no_grad()
    def work() -> None:
        model(x)

    return work


def batch_norm(shape: tuple[int, ...], mode: str) -> Work:
    """A layer forward in training or evaluation, or forward and backward."""
    bn, x, dy = nn.BatchNorm1d(shape[1]), tensor(tuple(shape)), tensor(tuple(shape), 1)
    if mode == "eval":
        bn.eval()
    if mode == "backward":
        return _forward_and_backward(bn, x, dy)

    @treadle.no_grad()
    def forward() -> None:
        bn(x)

    return forward


def sibling(kind: str, shape: tuple[int, ...]) -> Work:
    """Forward and backward of another normalising layer."""
    return _forward_and_backward(norm_layer(nn, kind, shape), tensor(tuple(shape)), tensor(tuple(shape), 1))


def _forward_and_backward(layer: nn.Module, x: treadle.Tensor, dy: treadle.Tensor) -> Work:
    x.requires_grad_()
    leaves = [x, *layer.parameters()]

    def work() -> None:
        for leaf in leaves:
            leaf.grad = None
        layer(x).backward(dy)

    return work


def array(kind: str, size: int) -> Work:
    """One operation on `size` elements; rows of 100 where there are rows."""
    rows = max(size // 100, 1)
    x = tensor((rows, 100)) if kind in ("sum columns", "softmax", "layer norm", "cross entropy") else tensor((size,))
    y, w, labels = tensor((size,), 1) if x.ndim == 1 else x, treadle.ones(100), treadle.tensor(np.arange(rows) % 100)
    works: dict[str, Work] = {
        "add": lambda: x + y,
        "exp": lambda: x.exp(),
        "tanh": lambda: x.tanh(),
        "gelu": lambda: x.gelu(),
        "chain": lambda: ((x * 2 + y).relu() - 1).square(),
        "sum": lambda: x.sum(),
        "sum columns": lambda: x.sum(0),
        "softmax": lambda: x.softmax(-1),
        "layer norm": lambda: nn.functional.layer_norm(x, (100,), w, w),
        "cross entropy": lambda: nn.functional.cross_entropy(x, labels),
    }
    return works[kind]


def matmul(kind: str, m: int, k: int, n: int) -> Work:
    """A product; t marks a factor that lies transposed in memory."""
    a = tensor((k, m)).T if kind[0] == "t" else tensor((m, k))
    b = tensor((n, k)).T if kind[1] == "t" else tensor((k, n))
    return lambda: a @ b


def epoch(n: int) -> Work:
    """All batches of 32 of an in-memory dataset, shuffled."""
    data = TensorDataset(tensor((n, 64)), treadle.zeros(n, dtype="int64"))
    loader = DataLoader(data, 32, shuffle=True)

    def work() -> None:
        for _ in loader:
            pass

    return work


def main_job() -> Work:
    """An epoch of `treadle train` on 60,000 images of 28 by 28 bytes (random ones), batch 100, with Adam."""
    rows = Rows(images(), treadle.tensor(np.arange(60_000) % 10), None, np.arange(60_000), scale=1 / 255)
    batches = loader(rows, 100, treadle.Generator(0))
    model, loss_of = MLPResNet(784), nn.CrossEntropyLoss()
    update = optim.Adam(model.parameters(), lr=1e-3)

    def work() -> None:
        for x, y in batches:
            update.zero_grad()
            loss_of(model(x), y).backward()
            update.step()

    return work


def images() -> treadle.Tensor:
    """Random bytes in the shape of the images."""
    return treadle.tensor(np.random.default_rng(0).integers(0, 256, (60_000, 784), dtype=np.uint8))
