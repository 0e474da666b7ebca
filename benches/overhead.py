"""What calls from Python cost beside their arithmetic, in treadle and, where it is installed, in PyTorch.

    python -m benches.overhead

Nanoseconds of a call on tensors so small that arithmetic hardly counts, one thread, median of samples taken by turns.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

SAMPLES = 25
SAMPLE = 2e-3  # seconds
Calls = dict[str, Callable[[], Any]]


def _calls(package: Any, nn: Any, optim: Any, tensor: Callable[[list[Any]], Any], empty: Callable[[], Any]) -> Calls:
    """The same calls for either library; their names of things are the same."""
    a, b, x = tensor([1.0, 2.0]), tensor([3.0, 4.0]), tensor([[1.0, 2.0, 3.0, 4.0]] * 2)
    layer, relu, model = nn.Linear(4, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    sgd, adam = optim.SGD(model.parameters(), lr=1e-3), optim.Adam(model.parameters(), lr=1e-3)
    leaf = tensor([1.0, 2.0]).requires_grad_()
    model(x).sum().backward()

    def quiet(call: Callable[[], Any]) -> Callable[[], Any]:
        def inside() -> None:
            with package.no_grad():
                for _ in range(100):
                    call()

        return inside

    return {
        "empty call into the core": empty,
        "shape": lambda: a.shape,
        "a + b": lambda: a + b,
        "a + b, recorded": lambda: leaf + b,
        "relu layer": lambda: relu(x),
        "linear layer (4, 4), recorded": lambda: layer(x),
        "linear layer (4, 4), no_grad": quiet(lambda: layer(x)),
        "backward of (a + b).sum()": lambda: (leaf + b).sum().backward(),
        "zero_grad, 4 parameters": sgd.zero_grad,
        "forward and backward, 2 linear layers": lambda: model(x).sum().backward(),
        "SGD step, 4 parameters": sgd.step,
        "Adam step, 4 parameters": adam.step,
    }


def _treadle() -> Calls:
    import treadle
    from treadle import nn, optim

    treadle.set_num_threads(1)
    return _calls(treadle, nn, optim, treadle.tensor, treadle.is_grad_enabled)


def _torch() -> Calls:
    import torch

    torch.set_num_threads(1)
    return _calls(torch, torch.nn, torch.optim, torch.tensor, torch.is_grad_enabled)


def _runs(call: Callable[[], Any]) -> int:
    """How many runs fill a sample; warms the call up."""
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 2 * SAMPLE:
        call()
        count += 1
    return max(1, count // 2)


def _sample(call: Callable[[], Any], runs: int) -> float:
    started = time.perf_counter()
    for _ in range(runs):
        call()
    return (time.perf_counter() - started) / runs * 1e9


def main() -> None:
    """Prints the table in Markdown."""
    libraries = {"treadle": _treadle()} | ({"PyTorch": _torch()} if importlib.util.find_spec("torch") else {})
    print("| ns a call | " + " | ".join(libraries) + " | ratio |\n" + "|---" * (len(libraries) + 2) + "|")
    nothing = lambda: None  # noqa: E731
    loop = min(_sample(nothing, 10_000) for _ in range(SAMPLES))
    for name in libraries["treadle"]:
        calls = [(calls[name], _runs(calls[name])) for calls in libraries.values()]
        samples: list[list[float]] = [[] for _ in calls]
        for _ in range(SAMPLES):
            for (call, runs), found in zip(calls, samples, strict=True):
                found.append(_sample(call, runs) / (100 if name.endswith("no_grad") else 1))
        medians = [statistics.median(found) for found in samples]
        ratio = f"{medians[1] / medians[0]:.1f}×" if len(medians) > 1 else "–"
        print(f"| {name} | " + " | ".join(f"{m:.0f}" for m in medians) + f" | {ratio} |", flush=True)
    print(f"\nAn empty function of Python in the same loop takes {loop:.0f} ns, which all rows include.")


if __name__ == "__main__":
    main()
