"""The pictures of a run as matplotlib figures: learning curves and the confusion matrix.

matplotlib is an extra, imported when the first picture is drawn. Invariant: figures are drawn on a canvas of their own,
so that no display is needed and the settings of a program that calls us stay as they are.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from treadle.training.history import History

__all__ = ["confusion", "curves"]

_TRAIN, _VALID, _INK, _GRID = "#e07b39", "#2b6cb0", "#333333", "#e6e6e6"
_DPI = 144
_LONGEST = 16  # characters of a class's name


def curves(history: History) -> Any:
    """Draws the loss, and each metric, of training and validation over the epochs.

    Args:
        history: The rows to draw; at least one.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There are no rows.
    """
    if not history.rows:
        raise ValueError("plot: expected at least one epoch, got none")
    names = [column.removeprefix("train_") for column in history.columns if column.startswith("train_")]
    figure = _figure(5.2 * len(names), 3.8)
    epochs = history["epoch"]
    for number, name in enumerate(names, start=1):
        axes = figure.add_subplot(1, len(names), number)
        _plain(axes)
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        for part, colour, label in (("train", _TRAIN, "training"), ("valid", _VALID, "validation")):
            values = [np.nan if value is None else value for value in history[f"{part}_{name}"]]
            if not np.all(np.isnan(values)):
                axes.plot(epochs, values, color=colour, linewidth=1.8, label=label, marker="o" if len(values) == 1 else "")
        axes.set_xlabel("epoch")
        axes.set_title(_title(name), loc="left", color=_INK, fontsize=12, parse_math=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(x=0.01)
        if len(epochs) == 1:
            axes.set_xticks(epochs)
        if name == "loss":
            _logarithmic(axes)
        if name == "accuracy":
            axes.yaxis.set_major_formatter(lambda share, _: f"{100.0 * share:g} %")
        label = {"loss": "mean loss per row", "accuracy": "share of rows right"}.get(name, _title(name))
        axes.set_ylabel(label, parse_math=False)
        if axes.lines:
            axes.legend(frameon=False)
    return figure


def confusion(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> Any:
    """Draws a confusion matrix: shades by share of the true class, counts in the cells.

    Args:
        counts: Counts of true class (row) against predicted class (column).
        classes: The names of the classes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    n = len(classes)
    names = [_short(name) for name in classes]
    longest = max(map(len, names))
    side = min(2.2 + 0.46 * n + 0.1 * max(longest - 3, 0), 16.0)
    figure = _figure(side, side)
    axes = figure.add_subplot()
    _plain(axes)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.pcolormesh(share, cmap="Blues", vmin=0.0, vmax=1.0, edgecolors="white", linewidth=1.0)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    place = {"rotation": 45, "ha": "right"} if longest > 3 else {"rotation": 0, "ha": "center"}
    middles = np.arange(n) + 0.5
    axes.set_xticks(middles, names, **place, rotation_mode="anchor", parse_math=False)
    axes.set_yticks(middles, names, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    right, total = int(np.trace(counts)), int(counts.sum())
    axes.set_title(f"{right} of {total} right: {right / max(total, 1):.1%}", loc="left", color=_INK, fontsize=12)
    if n <= 30:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if share[row, column] > 0.55 else _INK
            axes.text(column + 0.5, row + 0.5, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=9)
    return figure


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot: expected matplotlib, got none; pip install treadle[plot]") from error

    class Picture(Figure):
        """A figure that notebooks show although pyplot, which would tell them how, knows nothing of it."""

        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png")
            return file.getvalue()

    return Picture(figsize=(width, height), dpi=_DPI, layout="constrained")


def _plain(axes: Any) -> None:
    """Thin grey axes, none above or to the right, no tick marks."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#bbbbbb")
    axes.tick_params(which="both", length=0, colors=_INK)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)


def _logarithmic(axes: Any) -> None:
    """A logarithmic scale with plain numbers, where there are values and all are positive."""
    low = min((float(np.nanmin(line.get_ydata())) for line in axes.lines), default=0.0)
    if low <= 0.0:
        return
    bottom, top = axes.get_ylim()
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    if max(bottom, low) * 10.0 > top:  # less than a decade: its own lines are too few to read by
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.grid(axis="y", which="minor", color=_GRID, linewidth=0.8)
    else:
        axes.yaxis.set_minor_formatter(lambda *_: "")


def _short(name: str) -> str:
    """A name in one line that leaves room for the picture."""
    name = " ".join(name.split())
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _title(name: str) -> str:
    return {"mae": "mean absolute error", "r2": "R²"}.get(name, name)
