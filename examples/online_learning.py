"""Learning from a stream whose classes move: `partial_fit` keeps up where a model that was fitted once falls behind.

    python examples/online_learning.py [--quick]

Points in ten dimensions belong to one of two classes by the side of a plane that turns a little with every batch. Each batch is
first predicted, then learned from, so every prediction is of rows the model has not seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from treadle.sklearn import MLPClassifier

DIMENSIONS, ROWS, TURN = 10, 64, np.pi  # half a turn over the whole stream: by its end every answer is the opposite


def stream(batches: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of points and their classes; one in twenty is labelled wrong."""
    rng = np.random.default_rng(seed)
    for number in range(batches):
        angle = TURN * number / batches
        normal = np.zeros(DIMENSIONS)
        normal[:2] = np.cos(angle), np.sin(angle)
        x = rng.normal(size=(ROWS, DIMENSIONS))
        yield x, ((x @ normal > 0) ^ (rng.random(ROWS) < 0.05)).astype(int)


def run(batches: int, seed: int) -> dict[str, np.ndarray]:
    """The share of rows predicted right in each batch, by a model that goes on learning and by one that stops after a tenth."""
    models = {name: MLPClassifier((32,), learning_rate_init=3e-3, random_state=seed) for name in ("partial_fit", "fitted once")}
    right: dict[str, list[float]] = {name: [] for name in models}
    for number, (x, y) in enumerate(stream(batches, seed)):
        for name, model in models.items():
            right[name].append(float((model.predict(x) == y).mean()) if number else 0.5)
            if name == "partial_fit" or number < batches // 10:
                model.partial_fit(x, y, classes=[0, 1])
    return {name: np.array(shares) for name, shares in right.items()}


def main(arguments: list[str] | None = None) -> dict[str, np.ndarray]:
    """Prints the accuracy over each tenth of the stream."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a stream of 500 batches instead of 5000")
    options = parser.parse_args(arguments)
    right = run(500 if options.quick else 5000, options.seed)
    print(f"{'stream':>11}  " + "  ".join(f"{name:>12}" for name in right))
    for tenth in range(10):
        parts = (np.array_split(shares, 10)[tenth].mean() for shares in right.values())
        print(f"{tenth * 10} – {tenth * 10 + 10} %".rjust(11) + "  " + "  ".join(f"{part:>12.1%}" for part in parts))
    return right


if __name__ == "__main__":
    main()
