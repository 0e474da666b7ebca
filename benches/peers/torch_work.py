"""The work in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from benches.peers.inputs import normal
from benches.peers.layers import norm_layer

Work = Callable[[], Any]


def threads(n: int | None) -> None:
    """Sets the number of threads; None leaves the default."""
    if n is not None:
        torch.set_num_threads(n)


def tensor(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Normally distributed float32, the same in every library."""
    return torch.from_numpy(normal(shape, seed))


def mlp(d: int, h: int, norm: bool, depth: int) -> nn.Sequential:
    """d → h → … → h → 10."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(h if i else d, h), *([nn.BatchNorm1d(h)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(h, 10))


def step(h: int, batch: int, d: int, optimizer: str, norm: bool, depth: int = 2, variant: str = "plain") -> Work:
    """One training step; `variant` is how the optimizer runs."""
    model, loss_of = mlp(d, h, norm, depth), nn.CrossEntropyLoss()
    x, y = tensor((batch, d)), torch.arange(batch) % 10
    kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
    how = {"plain": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}[variant]
    update = kind(model.parameters(), lr=1e-3, **how)

    def work() -> None:
        update.zero_grad()
        loss_of(model(x), y).backward()
        update.step()

    return work


def inference(h: int, d: int, batch: int) -> Work:
    """A forward in evaluation."""
    model, x = mlp(d, h, True, 2).eval(), tensor((batch, d))

    @torch.inference_mode()
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

    @torch.no_grad()
    def forward() -> None:
        bn(x)

    return forward


def sibling(kind: str, shape: tuple[int, ...]) -> Work:
    """Forward and backward of another normalising layer."""
    return _forward_and_backward(norm_layer(nn, kind, shape), tensor(tuple(shape)), tensor(tuple(shape), 1))


def _forward_and_backward(layer: nn.Module, x: torch.Tensor, dy: torch.Tensor) -> Work:
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
    y, w, labels = tensor((size,), 1) if x.ndim == 1 else x, torch.ones(100), torch.arange(rows) % 100
    works: dict[str, Work] = {
        "add": lambda: x + y,
        "exp": lambda: x.exp(),
        "tanh": lambda: x.tanh(),
        "gelu": lambda: nn.functional.gelu(x),
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


def epoch(n: int, variant: str = "by row") -> Work:
    """All batches of 32 of an in-memory dataset, shuffled; `variant` is what its DataLoader indexes at a time."""
    data = torch.utils.data.TensorDataset(tensor((n, 64)), torch.zeros(n, dtype=torch.int64))
    if variant == "by row":
        loader = torch.utils.data.DataLoader(data, 32, shuffle=True)
    else:
        order = torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(data), 32, drop_last=False)
        loader = torch.utils.data.DataLoader(data, batch_size=None, sampler=order)

    def work() -> None:
        for _ in loader:
            pass

    return work


class Residual(nn.Module):
    """x + fn(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of the same shape."""
        return x + self.fn(x)


def main_job() -> Work:
    """An epoch of the same residual MLP on 60,000 images, indexed directly (faster than its DataLoader), with fused Adam."""
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (60_000, 784), dtype=np.uint8))
    labels = torch.arange(60_000) % 10

    def block() -> nn.Module:
        first, second = [nn.Linear(100, 50), nn.BatchNorm1d(50)], [nn.Linear(50, 100), nn.BatchNorm1d(100)]
        return nn.Sequential(Residual(nn.Sequential(*first, nn.ReLU(), nn.Dropout(0.1), *second)), nn.ReLU())

    model = nn.Sequential(nn.Linear(784, 100), nn.ReLU(), block(), block(), block(), nn.Linear(100, 10))
    loss_of, update = nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def work() -> None:
        order = torch.randperm(60_000)
        for start in range(0, 60_000, 100):
            index = order[start : start + 100]
            x, y = pixels[index].float().mul_(1 / 255), labels[index]
            update.zero_grad()
            loss_of(model(x), y).backward()
            update.step()

    return work
