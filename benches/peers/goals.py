"""What must be reached, each goal as a number of every row it is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benches.peers import report
from benches.peers.rows import MLP

Result = dict[str, Any]
# Arrays from here on are out of cache.
BIG = 10_000_000
MISSING = "not measured"


@dataclass(frozen=True)
class Goal:
    """`value` is None for rows that the goal is not about.

    Attributes:
        what: Of which work, against what.
        bound: That the worst row must reach.
        value: Of a row.
        most: Whether the bound is the most that is allowed, rather than the least.
        form: How the number is written.
    """

    what: str
    bound: float
    value: Callable[[Result], float | None]
    most: bool = False
    form: str = "{:.2f}×"


def _step(size: tuple[int, int, int], norm: bool, library: str) -> Callable[[Result], float | None]:
    def value(result: Result) -> float | None:
        args = result["args"]
        of_size = result["group"].startswith("training step") and (args["h"], args["batch"], args["d"]) == size
        return report.ratio(result, library) if of_size and args["norm"] is norm else None

    return value


def _of(work: str, number: Callable[[Result], float | None], **args: Any) -> Callable[[Result], float | None]:
    """`number` of the rows of a work whose arguments are these."""

    def value(result: Result) -> float | None:
        fits = result["work"] == work and all(result["args"].get(name) == wanted for name, wanted in args.items())
        return number(result) if fits and "skipped" not in result else None

    return value


def _against(library: str) -> Callable[[Result], float | None]:
    return lambda result: report.ratio(result, library)


def _products(threads: str) -> Callable[[Result], float | None]:
    def number(result: Result) -> float | None:
        return report.share(result, threads) if min(result["args"][side] for side in "mkn") >= 256 else None

    return _of("matmul", number)


def _out_of_cache(number: Callable[[Result], float | None]) -> Callable[[Result], float | None]:
    return _of("array", lambda result: number(result) if result["size"] >= BIG else None)


def _bandwidth(result: Result) -> float | None:
    return report.share(result, "default")


def _threads(result: Result) -> float | None:
    one, default = (result["median"].get(f"treadle/{threads}") for threads in ("1", "default"))
    return default / one if one and default and result["unit"] == "s" else None


def _goals() -> list[Goal]:
    least = [(12.0, 3.0), (8.0, 2.5), (3.0, 2.0), *[(2.0, 1.4)] * 3]
    out = []
    for norm in (True, False):
        for size, bounds in zip(MLP, least, strict=True):
            for library, bound in zip(("torch", "jax"), bounds, strict=True):
                what = f"step {size} {'with' if norm else 'without'} BatchNorm1d, against {report.LABELS[library]}"
                out.append(Goal(what, bound, _step(size, norm, library)))
    out += [
        Goal("batch-1 inference, against PyTorch", 8.0, _of("inference", _against("torch"), batch=1)),
        Goal("batch-1 inference, against JAX jit", 3.0, _of("inference", _against("jax"), batch=1)),
        Goal("matmul from 256³ on, of the multiply-add peak, one thread", 0.85, _products("1"), form="{:.0%}"),
        Goal("matmul from 256³ on, of the multiply-add peak, all threads", 0.8, _products("default"), form="{:.0%}"),
        Goal("arrays out of cache, of copy bandwidth", 0.8, _out_of_cache(_bandwidth), form="{:.0%}"),
        Goal("arrays out of cache, page faults of a run", 0.05, _out_of_cache(_faults), True, "{:.3g}"),
        Goal("epoch of 10,000 rows in memory, against PyTorch's DataLoader", 20.0, _of("epoch", _against("torch"), n=10_000)),
        Goal("import after NumPy's, seconds", 0.03, _of("import_seconds", _ours, layers=False, after_numpy=True), True, "{:.4f}"),
        Goal("peak memory of a step, of PyTorch's", 0.6, _of("peak_memory", _memory, alone=True), True),
        Goal("the default number of threads, time over one thread's", report.SLOWER, _threads, True),
    ]
    return out


def _faults(result: Result) -> float | None:
    faults: float | None = result.get("faults", {}).get("treadle/default")
    return faults


def _ours(result: Result) -> float | None:
    ours: float | None = result["median"].get("treadle/default")
    return ours


def _memory(result: Result) -> float | None:
    times = report.ratio(result, "torch")
    return 1 / times if times else None


GOALS = _goals()


def verdict(goal: Goal, results: list[Result]) -> tuple[str, str, str, str, str]:
    """What, goal, the worst row, its number, and "met" or "not met"."""
    found = [(value, f"{r['name']}") for r in results if (value := goal.value(r)) is not None]
    wanted = ("≤ " if goal.most else "≥ ") + goal.form.format(goal.bound)
    if not found:
        return goal.what, wanted, "–", "–", MISSING
    value, name = max(found) if goal.most else min(found)
    missed = sum(value > goal.bound if goal.most else value < goal.bound for value, _ in found)
    result = "met" if not missed else f"**not met** ({missed} of {len(found)} rows)"
    return goal.what, wanted, name, goal.form.format(value), result
