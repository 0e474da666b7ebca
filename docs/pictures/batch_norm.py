"""Draws `docs/pictures/batch_norm.png`: running statistics settling, and training and evaluation outputs agreeing.

Run it with `python docs/pictures/batch_norm.py` where treadle and matplotlib are installed. The picture has no background and grey
ink, so that it can be read on light and on dark pages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import treadle
from treadle import nn

MEAN, STD, STEPS, ROWS = 3.0, 2.0, 80, 64
COMPARED = {1: "#e07b39", 10: "#59a14f", STEPS: "#5b8fc7"}
INK = "#7d8590"


def main() -> None:
    """Feeds batches of N(3, 2²) to one layer and draws what it keeps and gives."""
    treadle.manual_seed(0)
    bn = nn.BatchNorm1d(1)
    statistics, outputs = [], {}
    for step in range(1, STEPS + 1):
        x = treadle.normal((ROWS, 1), MEAN, STD)
        y = bn.train()(x)
        statistics.append((bn.running_mean.item(), bn.running_var.item()))
        if step in COMPARED:
            outputs[step] = (y.detach().numpy()[:, 0], bn.eval()(x).detach().numpy()[:, 0])
    figure = Figure(figsize=(5.6, 5.8), layout="constrained")
    above, below = figure.subplots(2, 1)
    settling(above, np.array(statistics))
    agreeing(below, outputs)
    for axes in (above, below):
        plain(axes)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=144, transparent=True)


def settling(axes: Any, statistics: np.ndarray) -> None:
    """Running mean and variance, with the data's own as dotted lines."""
    lines = (("mean", MEAN, "#5b8fc7"), ("variance", STD**2, "#e07b39"))
    for column, (name, value, colour) in zip(statistics.T, lines, strict=True):
        axes.plot(np.arange(1, STEPS + 1), column, color=colour, linewidth=1.8)
        axes.axhline(value, color=colour, linewidth=1, linestyle=":")
        axes.text(STEPS, value - 0.25, f"running {name}", color=colour, ha="right", va="top", fontsize=11)
    axes.set(xlabel="training step", ylim=(0, 4.6), title="Running statistics settle (dotted: the data's)")


def agreeing(axes: Any, outputs: dict[int, tuple[np.ndarray, np.ndarray]]) -> None:
    """What the same batch gives in both modes after some steps: points on the diagonal agree."""
    axes.axline((0, 0), slope=1, color=INK, linewidth=1, linestyle=":")
    for step, (training, evaluation) in outputs.items():
        label = f"after {step} step{'s' if step > 1 else ''}"
        axes.plot(training, evaluation, ".", color=COMPARED[step], label=label, markersize=5)
    axes.set(xlabel="output in training", ylabel="in evaluation", title="The two modes come to agree (dotted)")
    axes.legend(frameon=False, labelcolor=INK, handletextpad=0.2)


def plain(axes: Any) -> None:
    """Grey axes, none above or to the right."""
    axes.title.set(color=INK, fontsize=12)
    axes.tick_params(colors=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)


if __name__ == "__main__":
    main()
