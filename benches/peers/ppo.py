"""Wall time to a mean return of 475 on CartPole by PPO: `examples/ppo_cartpole.py`, the same code in treadle and PyTorch.

    python -m benches.peers.ppo [--seeds N [N ...]] [--repeats N] [--out FOLDER]

Each run has a process of its own; the time begins when the library is loaded and includes that of the environments. Settings take
turns, and a run of the same seed goes through the same steps again: of its repetitions the fastest counts, which whatever else the
machine did disturbed least. Results are kept in a file, so that seeds can be run one call at a time; the table shows all there are.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benches.peers import machine

EXAMPLE = Path(__file__).parents[2] / "examples" / "ppo_cartpole.py"
SETTINGS = {
    "treadle, 1 thread": ("treadle", 1),
    "treadle, default": ("treadle", None),
    "PyTorch, 1 thread": ("torch", 1),
    "PyTorch, default": ("torch", None),
}


def work(library: str, threads: int | None, seed: int) -> dict[str, float]:
    """One run, in the process that this is called in."""
    spec = importlib.util.spec_from_file_location("ppo_cartpole", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example: Any = importlib.util.module_from_spec(spec)
    sys.modules["ppo_cartpole"] = example  # dataclasses look there
    spec.loader.exec_module(example)
    if threads:
        importlib.import_module(library).set_num_threads(threads)
    found: dict[str, float] = example.run(library, seed, example.MOST_STEPS)
    return found


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Seconds, and thousands of steps, of each seed and setting; below the medians, and seconds per 10,000 steps."""
    lines = ["| seed |" + "".join(f" {setting} |" for setting in SETTINGS), "|---|" + "---|" * len(SETTINGS)]
    for seed in sorted(results, key=int):
        runs = [results[seed][setting] for setting in SETTINGS]
        reached = ["" if run["return"] >= 475 else f" (return {run['return']:.0f})" for run in runs]
        cells = [
            f" {run['seconds']:.2f} s, {run['steps'] / 1000:.0f}k steps{lost} |" for run, lost in zip(runs, reached, strict=True)
        ]
        lines.append(f"| {seed} |" + "".join(cells))
    columns: dict[str, Callable[[dict[str, float]], float]] = {
        "median": lambda run: run["seconds"],
        "median per 10k steps": lambda run: run["seconds"] / run["steps"] * 10_000,
        "of which learning": lambda run: run["learning"] / run["steps"] * 10_000,
    }
    for title, value in columns.items():
        medians = [machine.median([value(runs[setting]) for runs in results.values()]) for setting in SETTINGS]
        lines.append(f"| **{title}** |" + "".join(f" {median:.2f} s |" for median in medians))
    return "\n".join(lines)


def main() -> None:
    """Runs the seeds and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benches.peers.ppo", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--repeats", type=int, default=3, help="runs of each seed and setting (default: 3)")
    parser.add_argument("--out", type=Path, default=Path("runs/peers"), help="folder for ppo.json (default: runs/peers)")
    options = parser.parse_args()
    file = options.out / "ppo.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for seed, _ in product(options.seeds, range(options.repeats)):
        best = results.setdefault(str(seed), {})
        for setting, (library, threads) in SETTINGS.items():
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                run = pool.submit(work, library, threads, seed).result()
            print(f"seed {seed}, {setting}: {run}", flush=True)
            best[setting] = min(run, best.get(setting, run), key=lambda run: run["seconds"])
        options.out.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(results, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
