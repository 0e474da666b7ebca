"""treadle's MLP estimators beside scikit-learn's at default parameters, on ten data sets that scikit-learn ships or generates.

    python -m benches.peers.estimators [--seeds N] [--only TEXT]

Every data set is split into the same five folds for both, columns (and numbers to predict) standardised. On each fold and for each
seed both are fitted in turn, so that whatever else the machine does hits both alike. scikit-learn runs with one BLAS thread and
with all, and its faster setting counts. The table shows the median over the folds of the fastest fit, and the mean score on the
held-out rows.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import datasets, neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from benches.peers import machine, report
from treadle import sklearn as ours

Data = tuple[Any, Any]

CLASSIFICATION: dict[str, Callable[[], Data]] = {
    "iris": lambda: datasets.load_iris(return_X_y=True),
    "wine": lambda: datasets.load_wine(return_X_y=True),
    "breast cancer": lambda: datasets.load_breast_cancer(return_X_y=True),
    "digits": lambda: datasets.load_digits(return_X_y=True),
    "make_moons": lambda: datasets.make_moons(2000, noise=0.2, random_state=0),
    "make_classification": lambda: datasets.make_classification(2000, 20, n_informative=10, n_classes=4, random_state=0),
}
REGRESSION: dict[str, Callable[[], Data]] = {
    "diabetes": lambda: datasets.load_diabetes(return_X_y=True),
    "make_friedman1": lambda: datasets.make_friedman1(2000, noise=1.0, random_state=0),
    "make_friedman2": lambda: datasets.make_friedman2(2000, noise=50.0, random_state=0),
    "make_regression": lambda: datasets.make_regression(2000, 50, n_informative=20, noise=20.0, random_state=0),
}
SETTINGS = ("treadle", "scikit-learn, 1 thread", "scikit-learn, all threads")


def fitted(setting: str, classify: bool, seed: int, x: Any, y: Any) -> tuple[float, Any]:
    """Seconds of a fit, and the estimator."""
    package: Any = ours if setting == "treadle" else neural_network
    model = (package.MLPClassifier if classify else package.MLPRegressor)(random_state=seed)
    with threadpool_limits(1 if setting.endswith("1 thread") else None):
        start = time.perf_counter()
        model.fit(x, y)
        return time.perf_counter() - start, model


def compare(data: Data, classify: bool, seeds: int) -> dict[str, tuple[float, float, float]]:
    """Seconds of a fit, mean score and mean number of epochs by setting."""
    x, y = data
    split = (StratifiedKFold if classify else KFold)(5, shuffle=True, random_state=0)
    if not classify:
        y = (y - y.mean()) / y.std()
    found: dict[str, list[tuple[float, float, float]]] = {setting: [] for setting in SETTINGS}
    for train, test in split.split(x, y):
        scaler = StandardScaler().fit(x[train])
        for seed in range(seeds):
            for setting in SETTINGS:
                seconds, model = fitted(setting, classify, seed, scaler.transform(x[train]), y[train])
                found[setting].append((seconds, model.score(scaler.transform(x[test]), y[test]), model.n_iter_))
    return {setting: _summary(np.array(rows).reshape(5, seeds, 3)) for setting, rows in found.items()}


def _summary(runs: Any) -> tuple[float, float, float]:
    """Of (folds, seeds, 3): the median over folds of the fastest fit, and the means of the others."""
    score, epochs = runs[:, :, 1:].mean(axis=(0, 1))
    return machine.median(runs[:, :, 0].min(axis=1).tolist()), float(score), float(epochs)


def row(name: str, data: Data, classify: bool, seeds: int) -> tuple[str, float]:
    """A line of the table, and how many times longer scikit-learn takes."""
    results = compare(data, classify, seeds)
    mine, one, every = (results[setting] for setting in SETTINGS)
    peer = min(one, every)
    x = data[0]
    cells = [name, f"{x.shape[0]} × {x.shape[1]}", "accuracy" if classify else "R²"]
    cells += [report.time(mine[0]), report.time(one[0]), report.time(every[0]), f"**{peer[0] / mine[0]:.1f}×**"]
    cells += [f"{mine[1]:.4f}", f"{peer[1]:.4f}", f"{mine[2]:.0f}", f"{peer[2]:.0f}"]
    return "| " + " | ".join(cells) + " |", peer[0] / mine[0]


def main() -> None:
    """Prints the table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benches.peers.estimators", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="fits of each estimator on each fold (default: 3)")
    parser.add_argument("--only", default="", help="only data sets whose name contains this text")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    print("\n".join(f"- {name}: {value}" for name, value in machine.facts().items()), end="\n\n")
    heads = ["data set", "rows × columns", "score", *(f"fit, {setting}" for setting in SETTINGS), "ratio"]
    heads += [f"{what}, {library}" for what in ("score", "epochs") for library in ("treadle", "scikit-learn")]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    ratios = []
    for classify, group in ((True, CLASSIFICATION), (False, REGRESSION)):
        for name, load in group.items():
            if options.only in name:
                line, ratio = row(name, load(), classify, options.seeds)
                ratios.append(ratio)
                print(line, flush=True)
    if ratios:
        print(f"\nGeometric mean of the ratios: {np.exp(np.mean(np.log(ratios))):.1f}×")


if __name__ == "__main__":
    main()
