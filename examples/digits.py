"""Trains the residual MLP on the hand-written digits with five seeds, and reports the mean accuracy on a held-out fifth.

Run it with `make demo`, or `python examples/digits.py --out FOLDER`.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from treadle.cli.main import main


def last_row(folder: Path) -> dict[str, str]:
    """The last epoch of a run."""
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))[-1]


def seconds(folder: Path) -> float:
    """Time of all epochs of a run."""
    with open(folder / "history.csv", newline="") as file:
        return sum(float(row["seconds"]) for row in csv.DictReader(file))


def run(arguments: list[str] | None = None) -> int:
    """Trains with seeds 0 to 4 and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/digits"), help="folder for the runs (default: runs/digits)")
    parser.add_argument("--quick", action="store_true", help="the first seed alone")
    options = parser.parse_args(arguments)
    out, seeds = options.out, 1 if options.quick else 5
    print("A residual MLP with BatchNorm1d on 1797 hand-written digits; a random fifth is held out.\n")
    accuracies = []
    for seed in range(seeds):
        folder = out / f"seed-{seed}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        if main(["train", "--data", "digits", "--seed", str(seed), "--out", str(folder), "--quiet"]) != 0:
            return 1
        accuracies.append(float(last_row(folder)["valid_accuracy"]))
        print(f"seed {seed}: test accuracy {accuracies[-1]:.2%}, trained in {seconds(folder):.2f} s, files in {folder}")
    print(f"\nmean test accuracy over {seeds} seeds: {sum(accuracies) / seeds:.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(run())
