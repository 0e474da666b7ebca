"""Runs with sources of state beside the model and its batches: losses, validation, metrics and callbacks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import test_training
from test_training import rows, without_seconds

import treadle
from treadle import Generator, Tensor, nn, optim
from treadle.data import DataLoader
from treadle.training import Accuracy, fit

ENTROPY = nn.CrossEntropyLoss()


class Scaled(nn.Module):
    """A loss that the optimizer trains, too, with a buffer and a generator of its own."""

    def __init__(self) -> None:
        self.scale = nn.Parameter(treadle.ones(2))
        self.calls = nn.Buffer(treadle.zeros(1))
        self.generator = Generator(3)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.requires_grad:
            self.calls.copy_(self.calls + 1)
        noise = treadle.randn(*outputs.shape, generator=self.generator) / self.calls
        return ENTROPY(outputs * self.scale + noise, targets)


class Counts:
    """A measure with slots, arrays of a type that files do not have, numbers of NumPy and a function."""

    __slots__ = ("__function", "counts", "seen", "shift")

    def __init__(self) -> None:
        self.__function = lambda counts: float(np.trace(counts))

    def reset(self) -> None:
        self.counts, self.seen, self.shift = np.zeros((2, 2), np.int16), [np.array("empty")], np.float32(0)

    def update(self, outputs: Any, targets: Any) -> None:
        np.add.at(self.counts, (targets.numpy(), outputs.numpy().argmax(axis=1)), 1)
        self.seen.append(outputs.numpy())
        self.shift += np.float32(outputs.numpy().sum()) / 3

    def compute(self) -> float:
        assert self.counts.dtype == np.int16
        assert all(isinstance(seen, np.ndarray) for seen in self.seen)
        return self.__function(self.counts) + float(self.shift) + sum(float(seen.std()) for seen in self.seen[1:])


class Counter:
    """A measure that says itself what is to be kept of its set."""

    def reset(self) -> None:
        self.seen: set[int] = set()

    def update(self, outputs: Any, targets: Any) -> None:
        self.seen |= {int(value * 1000) for value in outputs.numpy().ravel()}

    def compute(self) -> float:
        return float(len(self.seen))

    def state_dict(self) -> dict[str, Any]:
        return {"seen": np.sort(np.array(list(self.seen), np.int32))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert state["seen"].dtype == np.int32
        self.seen = set(state["seen"].tolist())


class Share(nn.Module):
    """A measure that is a module, but counts in numbers."""

    def __init__(self) -> None:
        self.total = nn.Buffer(treadle.zeros(1))

    def reset(self) -> None:
        self.total, self.seen = nn.Buffer(treadle.zeros(1)), 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.total += outputs.detach().mean()
        self.seen += 1

    def compute(self) -> float:
        return self.total.item() / self.seen


class Lazy:
    """A measure that makes what it counts in when it sees the first batch, or a class for the first time."""

    def __init__(self) -> None:
        self.counts: Any = None
        self.hits: dict[int, list[int]] = {}

    def reset(self) -> None:
        if self.counts is not None:
            self.counts[:] = 0
        for hits in self.hits.values():
            hits.clear()

    def update(self, outputs: Any, targets: Any) -> None:
        if self.counts is None:
            self.counts = np.zeros((2, 2), np.int64)
        for place, target in zip(outputs.numpy().argmax(axis=1).tolist(), targets.tolist(), strict=True):
            self.counts[target, place] += 1
            self.hits.setdefault(target, []).append(place)

    def compute(self) -> float:
        return float(np.trace(self.counts)) + sum(sum(hits) / len(hits) for hits in self.hits.values() if hits)


class Sources(list[Generator]):
    """A list that has a generator beside its entries."""

    def __init__(self, *generators: Generator) -> None:
        super().__init__(generators)
        self.generator = Generator(10)


class Sums:
    """What a measure sums up, beside it."""

    def __init__(self) -> None:
        self.total, self.rows = 0.0, 0

    def add(self, value: float) -> None:
        self.total, self.rows = self.total + value, self.rows + 1


class Composed:
    """A measure of others, of a helper, of an array and its view, of the model's weight and of what updates make."""

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.inner, self.parts = weight, Accuracy(), [Accuracy(), Share()]
        self.counts = np.zeros((2, 2))
        self.flat, self.log = self.counts.reshape(-1), logging.INFO
        self.nothing = self.mean = treadle.zeros(2)

    def reset(self) -> None:
        self.counts[:], self.sums, self.seen = 0, Sums(), []
        self.mean = self.nothing
        for part in (self.inner, *self.parts):
            part.reset()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.sums.add(outputs.detach().abs().sum().item())
        np.add.at(self.counts, (targets.numpy(), outputs.numpy().argmax(axis=1)), 1)
        self.mean = self.mean * 0.9 + outputs.detach().mean(0)
        self.seen.append(outputs.numpy().sum(axis=0))
        for part in (self.inner, *self.parts):
            part.update(outputs.detach(), targets)

    def compute(self) -> float:
        kept = self.sums.total / self.sums.rows + float(self.flat[0] - self.flat[2] / 3) + float(sum(self.seen).sum())
        assert self.nothing.tolist() == [0, 0]
        assert isinstance(self.weight, nn.Parameter)
        assert isinstance(self.parts[1].total, nn.Buffer)
        return kept + self.mean.sum().item() + self.weight.sum().item() + sum(p.compute() for p in (self.inner, *self.parts))


DRAWS = Generator(7)


def noise(x: Tensor) -> Tensor:
    return treadle.randn(*x.shape, generator=DRAWS) * 0.3


class Assigned(nn.Module):
    """Noise from what a class and a module have, and a mean whose buffer is assigned anew."""

    generator = Generator(8)

    def __init__(self) -> None:
        self.mean = nn.Buffer(treadle.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.mean = self.mean * 0.9 + x.detach().mean() * 0.1
        return x - self.mean + noise(x) * treadle.rand(1, generator=self.generator)


class Rows:
    """A dataset that draws."""

    def __init__(self) -> None:
        self.rows = rows(24)

    def __len__(self) -> int:
        return 24

    def __getitem__(self, place: int) -> Any:
        x, y = self.rows[place]
        return x + noise(x) + treadle.randn(*x.shape, generator=test_training.DRAWS) * 0.1, y


class Case:
    """A run with one more source of state."""

    def __init__(self, kind: str) -> None:
        treadle.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 2))
        self.train, self.valid = DataLoader(rows(24), 8, shuffle=True), DataLoader(rows(20), 8, shuffle=True)
        self.options: dict[str, Any] = {"loss": ENTROPY}
        self.trained = self.model.parameters()
        self.beside: list[Tensor] = []
        self.modules: list[nn.Module] = []
        self.schedule: Callable[[optim.Optimizer], Any] = lambda optimizer: None
        getattr(self, kind)()
        self.optimizer = optim.Adam(self.trained, lr=0.05)
        self.options["scheduler"] = self.schedule(self.optimizer)

    def plain(self) -> None:
        """Validation that draws from the default generator, and metrics that it moves."""
        self.options["metrics"] = {"accuracy": Accuracy()}

    def loss_module(self) -> None:
        loss = Scaled()
        self.trained, self.beside, self.options["loss"] = self.trained + loss.parameters(), [loss.scale, loss.calls], loss

    def loss_function(self) -> None:
        scale, generator = treadle.ones(2, requires_grad=True), Generator(4)
        self.trained, self.beside = [scale, *self.trained], [scale]
        noise = lambda outputs: treadle.randn(*outputs.shape, generator=generator)  # noqa: E731
        self.options["loss"] = lambda outputs, targets: ENTROPY(outputs * scale + noise(outputs), targets)

    def reached(self) -> None:
        for seed, generator in enumerate((DRAWS, test_training.DRAWS, Assigned.generator)):
            generator.manual_seed(seed)
        first, second, norm = Assigned(), Assigned(), nn.BatchNorm1d(6, affine=False)
        self.train = DataLoader(Rows(), 8, shuffle=True, transform=lambda x, y: (norm(x), y))
        self.model = nn.Sequential(self.model, first)
        self.options["loss"] = lambda outputs, targets: ENTROPY(second(outputs), targets)
        self.beside = [norm.running_mean, norm.running_var]
        self.modules = [second]

    def alike(self) -> None:
        """What would have one name, or one that no other process has."""
        sources, defaults = Sources(Generator(11)), [Generator(12)]
        drawn = {1: Generator(13), "1": Generator(14), "1.generator": Generator(15), object(): Generator(16)}
        norms: dict[str, Any] = {name: nn.BatchNorm1d(6, affine=False) for name in ("a", "a.b")}
        norms["a"].b = nn.BatchNorm1d(6, affine=False)

        def transform(x: Tensor, y: Tensor, more: Generator = Generator(17)) -> Any:  # noqa: B008
            x = norms["a.b"](norms["a"].b(norms["a"](x) + 1) * 2)
            for generator in (*sources, sources.generator, *defaults, *drawn.values(), more):
                x = x + treadle.randn(*x.shape, generator=generator) * 0.1
            return x, y

        self.train = DataLoader(rows(24), 8, shuffle=True, transform=transform)
        self.modules = list(norms.values())

    def composed(self) -> None:
        self.options["metrics"] = {"composed": Composed(self.model[0].weight)}

    def flags(self) -> None:
        def freeze(history: Any, model: Any) -> None:
            model[1].train(len(history) != 1)
            model[len(history) - 1].requires_grad_(False)

        self.options["callbacks"] = (freeze,)

    def validation(self) -> None:
        generator = Generator(5)
        self.valid.transform = lambda x, y: (x + treadle.randn(*x.shape, generator=generator), y)

    def metrics(self) -> None:
        self.options["metrics"] = {"counts": Counts(), "counter": Counter(), "share": Share(), "lazy": Lazy()}

    def callback(self) -> None:
        generator = Generator(6)

        def change(history: Any, model: Any) -> None:
            self.optimizer.param_groups[0]["lr"] *= 0.5
            model[0].weight.copy_(model[0].weight.clip(-0.2, 0.2) + treadle.randn(4, 6, generator=generator) * 0.1)

        self.options["callbacks"] = (change,)

    def rates(self) -> None:
        def lower(history: Any, _: Any) -> None:
            self.optimizer.param_groups[0]["lr"] *= 0.5 if len(history) == 1 else 1.0

        self.schedule, self.options["callbacks"] = lambda optimizer: optim.CosineAnnealingLR(optimizer, 8), (lower,)

    def stopping_callback(self) -> None:
        self.options["callbacks"] = (answer for answer in [lambda history, model: len(history) == 2])

    def fit(self, **options: Any) -> tuple[Any, ...]:
        options = self.options | {"optimizer": self.optimizer, "epochs": 3, "progress": False} | options
        history = fit(self.model, self.train, self.valid, **options)
        bits = [tensor.numpy().tobytes() for tensor in (*self.model.state_dict().values(), *self.beside)]
        bits += [tensor.numpy().tobytes() for module in self.modules for tensor in module.state_dict().values()]
        return bits, without_seconds(history)


KINDS = ["plain", "loss_module", "loss_function", "reached", "alike", "composed", "flags", "validation", "metrics", "callback"]
KINDS += ["rates", "stopping_callback"]
