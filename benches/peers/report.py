"""The table and the chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Result = dict[str, Any]


def best(result: Result, library: str) -> tuple[str, float] | None:
    """The setting in which a library is fastest, and its seconds."""
    found = [(key, s) for key, s in result["seconds"].items() if key.split("/")[0] == library]
    return min(found, key=lambda entry: entry[1]) if found else None


def time(seconds: float) -> str:
    """With three digits and a fitting unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def cells(result: Result) -> list[str]:
    """Name, treadle at one thread and by default, and each peer's best setting with the ratio to treadle's default."""
    ours = result["seconds"]
    row = [result["name"], time(ours["treadle/1"]), time(ours["treadle/default"])]
    for library in ("torch", "jax", "sklearn"):
        entry = best(result, library)
        if entry is None:
            row.append("–")
            continue
        setting, seconds = entry
        how = setting.partition("/")[2].replace("default", "all").replace("/", ", ")
        row.append(f"{time(seconds)} ({how}) **{seconds / ours['treadle/default']:.2f}×**")
    return row


def line(result: Result) -> str:
    """One row as text."""
    return "  ".join(f"{cell:<34}" for cell in cells(result)).replace("**", "")


def table(facts: dict[str, Any], results: list[Result]) -> str:
    """The whole table in Markdown."""
    out = ["Medians; a ratio says how many times longer the peer's best setting takes than treadle's default.", ""]
    out += [f"- {name}: {value}" for name, value in facts.items()]
    group = None
    for result in results:
        if result["group"] != group:
            group = result["group"]
            heads = ["treadle, 1 thread", "treadle, default", "PyTorch", "JAX jit", "scikit-learn"]
            out += ["", f"| {group} | " + " | ".join(heads) + " |", "|---" * 6 + "|"]
        out.append("| " + " | ".join(cells(result)) + " |")
    return "\n".join(out) + "\n"


def chart(results: list[Result], path: Path) -> None:
    """Ratios to the peers as bars, one panel; a bar left of 1 is a row that treadle loses."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.32 * len(results) + 1.5), layout="constrained")
    for offset, (library, label, colour) in enumerate((("torch", "PyTorch", "#d9734e"), ("jax", "JAX jit", "#4e79a7"))):
        places, ratios = [], []
        for i, result in enumerate(results):
            entry = best(result, library)
            if entry is not None:
                places.append(i + 0.36 * offset - 0.18)
                ratios.append(entry[1] / result["seconds"]["treadle/default"])
        axes.barh(places, ratios, height=0.34, label=label, color=colour)
    axes.set_yticks(range(len(results)), [result["name"] for result in results], fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel("time of the peer's best setting / time of treadle's default (log)")
    axes.legend(loc="lower right")
    axes.margins(y=0.01)
    figure.savefig(path, dpi=130)
    plt.close(figure)
