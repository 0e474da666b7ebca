"""Regression that knows what it does not know: a deep ensemble beside a single network, with a picture.

    python examples/regression_uncertainty.py [--quick] [--out FILE.png]

Each network gives a mean and a variance and is trained on the likelihood of what it sees; the ensemble is the equal mixture of
five of them. To each mean a random function is added that stays as it is: training makes up for it where there are data, so only
elsewhere do the members disagree, and there the variance of the mixture grows. The noise of the data grows from left to right; a
stretch in the middle and both ends are left out of the training rows. Needs matplotlib.

Sources: Lakshminarayanan et al. 2017, "Simple and scalable predictive uncertainty estimation using deep ensembles"; Osband et al.
2018, "Randomized prior functions for deep reinforcement learning"; Rahimi & Recht 2007, "Random features for large-scale kernel
machines".
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import treadle
from treadle import nn, optim
from treadle.data import DataLoader, TensorDataset
from treadle.training import fit, predict

SCORES = ("RMSE", "NLL", "coverage of 95 % intervals")


def draw(rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Inputs in [-6, 6] and a wave with noise that grows with them, as float32 columns."""
    x = rng.uniform(-6, 6, (rows, 1))
    return x.astype(np.float32), (np.sin(x) + (0.05 + 0.04 * (x + 6)) * rng.normal(size=x.shape)).astype(np.float32)


def trained_on(x: np.ndarray) -> np.ndarray:
    """Which rows lie where training rows are taken from."""
    distance = np.abs(x[:, 0])
    return (distance > 1.5) & (distance < 4)


class Member(nn.Module):
    """A network with two outputs, and a random function added to the first."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
        self.frequency, self.height = nn.Buffer(treadle.randn(1, 64)), nn.Buffer(treadle.randn(64, 1) * math.sqrt(2 / 64))
        self.phase = nn.Buffer(treadle.uniform((64,), 0, 2 * math.pi))

    def forward(self, x: treadle.Tensor) -> treadle.Tensor:
        """(N, 1) → (N, 2), mean and log-variance."""
        outputs, prior = self.network(x), (x @ self.frequency + self.phase).cos() @ self.height
        return treadle.concatenate([outputs[:, :1] + prior, outputs[:, 1:]], axis=1)


def negative_log_likelihood(outputs: treadle.Tensor, targets: treadle.Tensor) -> treadle.Tensor:
    """Of a Gaussian whose mean and log-variance are the two outputs."""
    mean, log_variance = outputs[:, :1], outputs[:, 1:]
    return 0.5 * (log_variance + (targets - mean).square() * (-log_variance).exp() + math.log(2 * math.pi)).mean()


def member(x: np.ndarray, y: np.ndarray, epochs: int) -> nn.Module:
    """A network trained from initial values and in an order of its own."""
    model = Member()
    batches = DataLoader(TensorDataset(x, y), 64, shuffle=True)
    adam = optim.Adam(model.parameters(), lr=3e-3)
    schedule = optim.CosineAnnealingLR(adam, T_max=epochs * len(batches))
    options = {"scheduler": schedule, "step_scheduler": "batch", "progress": False}
    fit(model, batches, loss=negative_log_likelihood, optimizer=adam, epochs=epochs, **options)
    return model


def mixture(models: list[nn.Module], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the equal mixture of what the models predict."""
    outputs = np.stack([predict(model, x) for model in models]).astype(np.float64)
    means, variances = outputs[..., :1], np.exp(outputs[..., 1:])
    mean = means.mean(axis=0)
    return mean, (variances + means**2).mean(axis=0) - mean**2


def scores(models: list[nn.Module], x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Root mean squared error, mean negative log-likelihood, and the share of targets within 1.96 standard deviations."""
    mean, variance = mixture(models, x)
    error = y - mean
    nll = 0.5 * (np.log(2 * np.pi * variance) + error**2 / variance)
    return float(np.sqrt((error**2).mean())), float(nll.mean()), float((np.abs(error) < 1.96 * np.sqrt(variance)).mean())


def picture(parts: dict[str, list[nn.Module]], x: np.ndarray, y: np.ndarray, path: Path) -> None:
    """The training rows, and each prediction with its 95 % interval."""
    figure = Figure(figsize=(10, 3.6), layout="constrained", dpi=144)
    places = np.linspace(-6, 6, 600, dtype=np.float32)[:, None]
    for axes, (name, models) in zip(figure.subplots(1, len(parts), sharey=True), parts.items(), strict=True):
        mean, variance = mixture(models, places)
        spread = 1.96 * np.sqrt(variance[:, 0])
        axes.scatter(x, y, s=4, color="#999999", linewidths=0, label="training rows")
        axes.plot(places, mean, color="#2b6cb0", label="mean")
        axes.fill_between(places[:, 0], mean[:, 0] - spread, mean[:, 0] + spread, color="#2b6cb0", alpha=0.2, label="95 %")
        axes.plot(places, np.sin(places), color="#333333", linewidth=0.8, linestyle="--", label="truth")
        axes.set(title=name, xlabel="x", ylim=(-3.5, 3.5))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, loc="upper left", ncols=2, fontsize=8)
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> dict[str, tuple[float, float, float]]:
    """Trains, prints the scores on new rows inside and outside of what was trained on, and draws."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/uncertainty.png"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="25 epochs instead of 200")
    options = parser.parse_args(arguments)
    treadle.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    x, y = draw(2000, rng)
    x, y = x[trained_on(x)], y[trained_on(x)]
    ensemble = [member(x, y, 25 if options.quick else 200) for _ in range(5)]
    parts = {"one network": ensemble[:1], "ensemble of five": ensemble}
    test_x, test_y = draw(4000, rng)
    within = trained_on(test_x)
    found = {}
    for where, rows in (("where there were data", within), ("elsewhere", ~within)):
        for name, models in parts.items():
            found[f"{name}, {where}"] = scores(models, test_x[rows], test_y[rows])
    widths = [max(len(head), 6) for head in SCORES]
    print(" " * 40 + "  ".join(head.rjust(width) for head, width in zip(SCORES, widths, strict=True)))
    for name, values in found.items():
        print(name.ljust(40) + "  ".join(f"{value:{width}.3f}" for value, width in zip(values, widths, strict=True)))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    picture(parts, x, y, options.out)
    print(f"drawn: {options.out}")
    return found


if __name__ == "__main__":
    main()
