"""The chart: how many times longer each peer takes, row by row, on a logarithmic axis."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from benches.peers import report

Result = dict[str, Any]

COLUMNS = 3
ROW = 0.155  # inches
HEAD = 0.75  # inches of a panel beside its rows
WON, LOST = "#2b7a4b", "#c0392b"
MARKS = {"torch": "o", "jax": "s", "sklearn": "^"}


def _ratios(result: Result) -> dict[str, float]:
    """What there is to show of a row, by library."""
    return {library: times for library in MARKS if (times := report.ratio(result, library)) is not None}


def _columns(groups: list[tuple[str, list[Result]]]) -> list[list[tuple[str, list[Result]]]]:
    """The groups in order, cut into columns of about the same height."""
    heights = [HEAD + ROW * len(rows) for _, rows in groups]
    target, filled = sum(heights) / COLUMNS, 0.0
    out: list[list[tuple[str, list[Result]]]] = [[] for _ in range(COLUMNS)]
    for group, height in zip(groups, heights, strict=True):
        out[min(COLUMNS - 1, int((filled + height / 2) / target))].append(group)
        filled += height
    return [column for column in out if column]


def _panel(axes: Any, title: str, rows: list[Result], limits: tuple[float, float]) -> None:
    for place, result in enumerate(rows):
        for library, times in _ratios(result).items():
            colour = WON if times >= 1 else LOST
            axes.plot([1, times], [place, place], color=colour, linewidth=0.6, alpha=0.5, zorder=1)
            filling = colour if library == "torch" else "white"
            axes.plot(times, place, MARKS[library], color=colour, markersize=3.8, markerfacecolor=filling)
    axes.set_yticks(range(len(rows)), [result["name"] for result in rows], fontsize=6.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    ticks = [tick for tick in (0.2, 1, 5, 20, 100, 500) if limits[0] <= tick <= limits[1]]
    axes.set_xticks(ticks, [f"{tick:g}×" for tick in ticks], fontsize=6.5)
    axes.minorticks_off()
    axes.axvline(1, color="black", linewidth=0.9, zorder=0)
    axes.grid(axis="x", linewidth=0.3, alpha=0.6)
    axes.set_title(title, fontsize=8.5, fontweight="bold", loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def draw(results: list[Result], path: Path) -> None:
    """Writes the picture; a mark left of 1 is a row that treadle loses to that peer."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    compared = [result for result in results if _ratios(result)]
    groups = [(name, list(rows)) for name, rows in itertools.groupby(compared, key=lambda result: result["group"])]
    ratios = [times for result in compared for times in _ratios(result).values()]
    if not ratios:
        return
    limits = min(0.45, 0.8 * min(ratios)), max(12.0, 1.3 * max(ratios))
    columns = _columns(groups)
    height = max(sum(HEAD + ROW * len(rows) for _, rows in column) for column in columns) + 0.9
    figure = plt.figure(figsize=(6.4 * len(columns), height), layout="constrained")
    for part, column in zip(figure.subfigures(1, len(columns), squeeze=False)[0], columns, strict=True):
        empty = height - 0.9 - sum(HEAD + ROW * len(rows) for _, rows in column)
        heights = [HEAD + ROW * len(rows) for _, rows in column] + ([empty] if empty > 0.3 else [])
        panels = part.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (title, rows) in zip(panels, column, strict=False):
            _panel(axes, title, rows, limits)
        for axes in panels[len(column) :]:
            axes.axis("off")
    handles = [
        Line2D([], [], linestyle="", marker=mark, color="grey", label=report.LABELS[library], markersize=6)
        for library, mark in MARKS.items()
    ]
    for handle in handles[1:]:
        handle.set_markerfacecolor("white")
    handles += [Line2D([], [], color=WON, label="treadle is ahead"), Line2D([], [], color=LOST, label="the peer is ahead")]
    title = "time (or bytes) of the peer's best setting / treadle's default, logarithmic"
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=9, title=title, title_fontsize=10)
    figure.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(figure)
