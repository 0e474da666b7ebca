"""What `detect_anomaly` costs a training step: python -m benches.anomaly"""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext

import treadle
from treadle import Tensor, nn, optim


def step(model: nn.Module, optimizer: optim.Optimizer, x: Tensor, y: Tensor) -> None:
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def main() -> None:
    treadle.set_num_threads(1)
    print(f"{'hidden, batch, inputs':>24} {'plain µs':>10} {'watched µs':>11} {'cost':>7}")
    for hidden, batch, inputs in [(32, 16, 16), (64, 32, 64), (128, 64, 784), (256, 128, 784)]:
        layers = [nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
        layers += [nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 10)]
        model = nn.Sequential(*layers)
        adam = optim.Adam(model.parameters(), lr=1e-3)
        x, y = treadle.randn(batch, inputs), treadle.tensor([i % 10 for i in range(batch)])

        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(60):
            for watched in (False, True):
                with treadle.detect_anomaly() if watched else nullcontext():
                    start = time.perf_counter()
                    for _ in range(20):
                        step(model, adam, x, y)
                    times[watched].append((time.perf_counter() - start) / 20 * 1e6)
        plain, watched_ = (statistics.median(times[kind]) for kind in (False, True))
        print(f"{(hidden, batch, inputs)!s:>24} {plain:10.1f} {watched_:11.1f} {watched_ / plain - 1:7.1%}")


if __name__ == "__main__":
    main()
