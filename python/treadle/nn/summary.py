"""`summary`: a model's layers with their output shapes, parameters, floating-point operations and times.

Invariant: a copy of the model is run, so the model itself stays as it is, whatever its layers do. Functions are not copied: what
one closes over is the model's own, so that is evaluated too, and has its buffers back afterwards.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from treadle import _core, models, notebook
from treadle._core import Tensor, default_generator
from treadle.autograd import drawing_from, no_grad
from treadle.checks import at_least, is_size
from treadle.nn import activation, container, dropout, linear, norm, spatial_norm
from treadle.nn.mode import evaluating
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.nn.state import Snapshot

__all__ = ["LayerSummary", "Summary", "summary"]

_HEADS = ("layer", "output shape", "parameters", "FLOPs", "time")

# Operations per value of the output; a function such as exp counts as one.
_PER_VALUE: dict[type[Module], int] = {
    **dict.fromkeys((container.Sequential, dropout.Dropout, linear.Embedding, linear.Flatten, linear.Identity), 0),
    **dict.fromkeys((models.MLP, models.MLPResNet), 0),
    **dict.fromkeys((activation.ReLU, activation.LeakyReLU, activation.ELU, activation.GELU, activation.SiLU), 1),
    **dict.fromkeys((activation.Sigmoid, activation.Softplus, activation.Tanh, container.Residual), 1),
    **dict.fromkeys((norm.BatchNorm1d, spatial_norm.BatchNorm2d), 2),  # in evaluation: one factor and one term
    norm.RMSNorm: 4,
    **dict.fromkeys((activation.Softmax, activation.LogSoftmax), 5),
    **dict.fromkeys((norm.GroupNorm, norm.LayerNorm, spatial_norm.InstanceNorm1d), 7),
}


@dataclass
class LayerSummary:
    """What is known of one layer; the layers inside it are not counted in.

    Attributes:
        name: Its dotted name in the model; empty for the model itself.
        kind: The name of its class.
        output_shape: Shape of what it gave last; None if it gave no Tensor or was not called.
        parameters: Numbers in its own parameters.
        flops: Floating-point operations of its calls; None where its class is not one of treadle's.
        calls: How often one run calls it.
        seconds: Time of its calls, the median over the runs.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...] | None = None
    parameters: int = 0
    flops: int | None = None
    calls: int = 0
    seconds: float = 0.0

    def _cells(self, above: list[str]) -> tuple[str, ...]:
        """The row of the table, below the layers of the names `above` that this one is in."""
        own = self.name.removeprefix(f"{above[-1]}." if above and above[-1] else "") + ": " if self.name else ""
        repeated = f" ({self.calls} calls)" if self.calls > 1 else ""
        shape = "-" if self.output_shape is None else str(self.output_shape)
        flops = "-" if self.flops is None else _short(self.flops)
        seconds = _short(self.seconds, "s") if self.calls else "not called"
        return "  " * len(above) + own + self.kind + repeated, shape, f"{self.parameters:,}", flops, seconds


@dataclass
class Summary:
    """What `summary` found; it prints as a table in ASCII, in notebooks too.

    Attributes:
        layers: The model and every module in it, each once, in the order of definition.
        trainable: Numbers in parameters that require grad.
    """

    layers: list[LayerSummary]
    trainable: int

    @property
    def parameters(self) -> int:
        """Numbers in all parameters; shared ones count once."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def flops(self) -> int:
        """Floating-point operations of all layers whose own are known."""
        return sum(layer.flops or 0 for layer in self.layers)

    @property
    def seconds(self) -> float:
        """Time of a run."""
        return sum(layer.seconds for layer in self.layers)

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        above: list[str] = []
        for layer in self.layers:
            while above and above[-1] and not layer.name.startswith(f"{above[-1]}."):
                above.pop()
            rows.append(layer._cells(above))
            above.append(layer.name)
        total = ("total", "", f"{self.parameters:,}", _short(self.flops), _short(self.seconds, "s"))
        return [*rows, total]

    def _notes(self) -> Iterator[str]:
        if self.trainable != self.parameters:
            yield f"{self.trainable:,} parameters are trained, {self.parameters - self.trainable:,} are frozen"
        unknown = sorted({layer.kind for layer in self.layers if layer.calls and layer.flops is None})
        if unknown:
            yield f"FLOPs written in the forward of {', '.join(unknown)} itself are not counted"

    def __str__(self) -> str:
        rows = self._rows()
        widths = [max(map(len, column)) for column in zip(_HEADS, *rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) if number else cell.ljust(width) for number, (cell, width) in enumerate(pairs))
            for pairs in (zip(cells, widths, strict=True) for cells in (_HEADS, *rows))
        ]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], *self._notes()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return notebook.table(_HEADS, self._rows()) + "".join(f"<p>{escape(note)}</p>" for note in self._notes())


def summary(model: Module, input_shape: Any, repeats: int = 10) -> Summary:
    """Runs a copy of the model in evaluation mode, and tells what each layer gives, holds and costs.

    A multiplication and an addition are two operations. Each layer is called by itself, also where `Sequential` would run
    two as one kernel, and watching it costs about a microsecond.

    Args:
        model: The model; its mode, statistics, gradients and the default generator stay as they are.
        input_shape: Shape of the input with its batch axis; or a Tensor, such as indices for an Embedding; or a list of
            either for a forward of several inputs.
        repeats: Timed runs, after one that is not timed.

    Raises:
        TypeError: A model that is not a Module, or that cannot be copied, such as one with a lock.
        ValueError: A size or number of repeats that is not a whole number of at least 1.

    Example:
        >>> print(treadle.summary(nn.Sequential(nn.Linear(64, 32), nn.ReLU()), (8, 64)))
    """
    if not isinstance(model, Module):
        raise TypeError(f"summary: expected a module, got {type(model).__name__}")
    repeats = at_least("summary", "repeats", repeats, 1)
    parameters = model.parameters()
    floats = [p.dtype for p in parameters if p.dtype.is_floating_point]
    given = input_shape if isinstance(input_shape, list) else [input_shape]
    inputs = [_input(item, floats[0] if floats else _core.float32) for item in given]
    watch = _Watch(_copied(model).eval())
    before = Snapshot(model)
    try:
        with evaluating(model), no_grad(), drawing_from(copy.copy(default_generator())):
            for _ in range(repeats + 1):
                watch.run(inputs)
    except Exception as error:
        shown = ", ".join(f"{x.dtype.name} of shape {x.shape}" for x in inputs)
        error.add_note(f"summary: the model was given {shown}; a Tensor as input_shape is given as it is")
        raise
    finally:
        before.restore()
    return Summary(watch.layers(), sum(p.size for p in parameters if p.requires_grad))


def _copied(model: Module) -> Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise TypeError(f"summary: expected a model that copy.deepcopy copies, got {type(model).__name__} ({error})") from error


def _input(given: Any, dtype: Any) -> Tensor:
    """A tensor of the given shape; ones, because a zero is more likely to be divided by."""
    if isinstance(given, Tensor):
        return given
    if not isinstance(given, tuple) or not all(map(is_size, given)):
        raise ValueError(f"summary: expected input_shape as a tuple of sizes of at least 1, got {given!r}")
    return _core.ones(given, dtype=dtype)


class _Watch:
    """Runs a model that it may change, and keeps an eye on every call of its modules."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self.found: dict[int, LayerSummary] = {}
        self.seconds: dict[int, list[float]] = {}  # of each module, run by run
        self.inside = [0.0]  # seconds of the calls within each call that has begun
        counted: set[int] = set()
        for name, module in list(model.named_modules()):
            own = {id(p): p.size for _, p in module.named_members() if isinstance(p, Parameter) and id(p) not in counted}
            counted.update(own)
            self.found[id(module)] = LayerSummary(name, type(module).__name__, parameters=sum(own.values()))
            self.seconds[id(module)] = []
            module.__class__ = self._watched(type(module))

    def _watched(self, kind: type[Module]) -> type[Module]:
        """A class of the same name, whose calls go through `call`. No exact type, so `Sequential` runs no two as one."""
        rule = next(base for base in kind.__mro__ if "forward" in vars(base))

        def call(module: Module, *args: Any, **kwargs: Any) -> Any:
            return self.call(module, rule, lambda: kind.__call__(module, *args, **kwargs))

        return type(kind.__name__, (kind,), {"__call__": call})

    def call(self, module: Module, rule: type[Module], forward: Callable[[], Any]) -> Any:
        """Runs one call of a module and enters what it gave and how long it took without the calls within it."""
        entered = time.perf_counter()
        layer = self.found[id(module)]
        self.inside.append(0.0)
        start = time.perf_counter()
        output = forward()
        whole, within = time.perf_counter() - start, self.inside.pop()
        layer.calls += 1
        self.seconds[id(module)][-1] += whole - within
        if isinstance(output, Tensor):
            layer.output_shape = output.shape
            flops = _flops(module, rule, output.size)
            layer.flops = None if flops is None else flops + (layer.flops or 0)
        self.inside[-1] += time.perf_counter() - entered  # what watching took is not the caller's time either
        return output

    def run(self, inputs: list[Tensor]) -> None:
        """Runs the model; all but the times is of the last run."""
        for number, layer in self.found.items():
            layer.calls, layer.flops = 0, None
            self.seconds[number].append(0.0)
        self.model(*inputs)

    def layers(self) -> list[LayerSummary]:
        """What was found; the first run does not count in the times."""
        for number, layer in self.found.items():
            layer.seconds = statistics.median(self.seconds[number][1:])
        return list(self.found.values())


def _flops(module: Module, rule: type[Module], size: int) -> int | None:
    """Operations of a call that gave `size` values; `rule` is the class that defines the forward."""
    if isinstance(module, linear.Linear) and rule is linear.Linear:
        return size * (2 * module.in_features - (module.bias is None))
    return size * _PER_VALUE[rule] if rule in _PER_VALUE else None


def _short(value: float, unit: str = "") -> str:
    """Three digits and a prefix."""
    for prefix, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0), ("m", 1e-3), ("u", 1e-6)):
        if value >= 0.9995 * scale or (value == 0 and scale == 1.0):
            return f"{value / scale:.3g} {prefix}{unit}".rstrip()
    return f"{value / 1e-9:.3g} n{unit}"
