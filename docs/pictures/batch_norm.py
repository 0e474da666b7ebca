"""Draws `docs/pictures/batch_norm.png`: running statistics settling, and training and evaluation outputs agreeing.

Run it with `python docs/pictures/batch_norm.py` where treadle and matplotlib are installed.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

import treadle
from treadle import nn

mpl.use("Agg")
import matplotlib.pyplot as plt

MEAN, STD, STEPS = 3.0, 2.0, 80


def main() -> None:
    """Feeds batches of N(3, 2²) to one layer and draws what it keeps and gives."""
    treadle.manual_seed(0)
    bn = nn.BatchNorm1d(1)
    means, variances, gaps = [], [], []
    for _ in range(STEPS):
        x = treadle.normal((64, 1), MEAN, STD)
        y = bn.train()(x)
        means.append(bn.running_mean.item())
        variances.append(bn.running_var.item())
        gaps.append(float(np.abs(bn.eval()(x).numpy() - y.numpy()).max()))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    steps = np.arange(1, STEPS + 1)
    left.plot(steps, means, label="running mean", color="#4e79a7")
    left.plot(steps, variances, label="running variance", color="#d9734e")
    for value, colour in ((MEAN, "#4e79a7"), (STD**2, "#d9734e")):
        left.axhline(value, color=colour, linewidth=0.8, linestyle=":")
    left.set(xlabel="training step", ylabel="value", title="Running statistics settle (dotted: the data's)")
    left.legend(frameon=False, loc="lower right")
    right.semilogy(steps, gaps, color="#59a14f")
    right.set(xlabel="training step", ylabel="largest difference", title="Training and evaluation outputs agree")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=130)


if __name__ == "__main__":
    main()
