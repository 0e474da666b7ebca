"""The table, and whether what must be reached was."""

from __future__ import annotations

from typing import Any

Result = dict[str, Any]

LABELS = {"torch": "PyTorch", "jax": "JAX jit", "sklearn": "scikit-learn"}
# Of one thread's time that the default number of threads may cost more.
SLOWER = 1.05
ABOUT = """Medians; a ratio says how many times as long (or as many bytes) the peer's best setting takes as treadle's default, so
below 1 treadle loses. The limit is the machine's: copies of arrays of the same size, or multiply-adds on registers, measured by
turns with the row; its two numbers are for one thread and the default, each against the limit with as many threads. Of a training
step only matrix products are counted in it. Page faults are those of one run of treadle's default."""


def best(result: Result, library: str) -> tuple[str, float] | None:
    """The setting in which a library is best, and its seconds or bytes."""
    found = [(key, value) for key, value in result["median"].items() if key.split("/")[0] == library]
    return min(found, key=lambda entry: entry[1]) if found else None


def ratio(result: Result, library: str) -> float | None:
    """A library's best setting over treadle's default."""
    entry, ours = best(result, library), result["median"].get("treadle/default")
    return entry[1] / ours if entry and ours else None


def share(result: Result, threads: str) -> float | None:
    """Of the machine's limit that treadle reaches."""
    floor, ours = (result["median"].get(f"{who}/{threads}") for who in ("machine", "treadle"))
    return floor / ours if floor and ours else None


def slower_by_default(result: Result) -> float | None:
    """The default's time over that of one thread, where it is over what is allowed."""
    one, default = (result["median"].get(f"treadle/{threads}") for threads in ("1", "default"))
    return default / one if one and default and result["unit"] == "s" and default / one > SLOWER else None


def time(seconds: float) -> str:
    """With three digits and a fitting unit."""
    return _scaled(seconds, (("s", 1.0), ("ms", 1e3), ("µs", 1e6), ("ns", 1e9)))


def amount(value: float, unit: str) -> str:
    """Seconds or bytes."""
    return time(value) if unit == "s" else _scaled(value, (("GB", 1e-9), ("MB", 1e-6), ("kB", 1e-3), ("B", 1.0)))


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    unit, scale = next((entry for entry in units if abs(value) * entry[1] >= 1), units[-1])
    number = value * scale
    return f"{number:.3g} {unit}" if abs(number) < 1000 else f"{number:.0f} {unit}"


def cells(result: Result) -> list[str]:
    """Name, treadle's two settings, its share of the limit, each peer's best setting with its ratio, and notes."""
    if "skipped" in result:
        return [result["name"], *["–"] * 6, result["skipped"]]
    unit, ours = result["unit"], [result["median"].get(f"treadle/{threads}") for threads in ("1", "default")]
    row = [result["name"], *("–" if value is None else amount(value, unit) for value in ours)]
    shares = [share(result, threads) for threads in ("1", "default")]
    row.append(" / ".join("–" if s is None else f"{s:.0%}" for s in shares) if any(shares) else "–")
    for library in LABELS:
        entry, times = best(result, library), ratio(result, library)
        if entry is None:
            row.append("–")
            continue
        how = ", ".join(entry[0].split("/")[1:]).replace("default", "all")
        shown = amount(entry[1], unit) + ("" if result.get("fresh") and how == "all" else f" ({how})")
        row.append(shown if times is None else f"{shown} **{times:.2f}×**")
    return [*row, "; ".join(notes(result))]


def notes(result: Result) -> list[str]:
    """What a reader must know of a row: a default that is slower, another network, page faults, what could not be measured."""
    out = []
    if slower := slower_by_default(result):
        pairs = list(zip(*(result["samples"][f"treadle/{threads}"] for threads in ("1", "default")), strict=True))
        worse = sum(default > one for one, default in pairs)
        out.append(f"default {slower - 1:.0%} slower than 1 thread ({worse} of {len(pairs)} rounds)")
    if result.get("work") == "inference" and best(result, "sklearn"):
        out.append("scikit-learn: a network without BatchNorm")
    if (faults := result.get("faults", {}).get("treadle/default", 0)) >= 0.05:
        out.append(f"{faults:.3g} page faults")
    return out + [f"{LABELS.get(library, library)}: {why}" for library, why in result.get("notes", {}).items() if why]


def line(result: Result) -> str:
    """One row as text."""
    return "  ".join(f"{cell:<30}" for cell in cells(result)).replace("**", "")


def _facts(facts: dict[str, Any]) -> list[str]:
    return [ABOUT, "", *(f"- {name}: {value}" for name, value in facts.items())]


def table(facts: dict[str, Any], results: list[Result]) -> str:
    """The whole table in Markdown, with the checks at its end."""
    heads = ["treadle, 1 thread", "treadle, default", "of the limit", *LABELS.values(), "notes"]
    out, group = _facts(facts), None
    for result in results:
        if result["group"] != group:
            group = result["group"]
            out += ["", f"| {group} | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
        out.append("| " + " | ".join(cells(result)) + " |")
    return "\n".join([*out, "", checks(results)]) + "\n"


def bandwidth_table(facts: dict[str, Any], results: list[Result]) -> str:
    """Rows that memory bounds, with PyTorch's and JAX's settings and treadle's bytes per second."""
    settings = {"treadle/1": "treadle, 1 thread", "treadle/default": "treadle, all", "torch/1": "PyTorch, 1 thread"}
    settings |= {"torch/default": "PyTorch, all", "jax/1": "JAX jit, 1 thread", "jax/default": "JAX jit, all"}
    heads = [*settings.values(), "PyTorch / treadle", "JAX / treadle", "GB/s, 1 thread and all", "share of copy bandwidth"]
    out = [*_facts(facts), "", "| shape | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for result in results:
        row = [result["name"], *(time(result["median"][key]) if key in result["median"] else "–" for key in settings)]
        ratios = [ratio(result, library) for library in ("torch", "jax")]
        row += ["–" if times is None else f"**{times:.2f}×**" for times in ratios]
        rates = [result["bytes"] / result["median"][f"treadle/{threads}"] / 1e9 for threads in ("1", "default")]
        shares = [share(result, threads) for threads in ("1", "default")]
        row.append(" / ".join(f"{rate:.1f}" for rate in rates))
        row.append("in cache, not compared" if shares[1] is None else " / ".join("–" if s is None else f"{s:.0%}" for s in shares))
        out.append("| " + " | ".join(row) + " |")
    return "\n".join(out) + "\n"


def checks(results: list[Result]) -> str:
    """Every goal as met or not, with the number and the row that is worst."""
    from benches.peers import goals

    heads = ("what must be reached", "goal", "worst row", "measured", "")
    out = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for goal in goals.GOALS:
        out.append("| " + " | ".join(goals.verdict(goal, results)) + " |")
    lost = [r for r in results if any((times := ratio(r, library)) is not None and times < 1 for library in LABELS)]
    skipped = sum("skipped" in r for r in results)
    tail = f"{len(results)} rows, {len(lost)} of them lost to a peer, {skipped} not measured"
    return "\n".join([*out, "", tail + "".join(f"\n- {r['group']}: {r['name']}" for r in lost)])
