"""Classification of the rows of a CSV file: reading, standardising, training with early stopping, and the confusion matrix.

    python examples/tabular_csv.py                                  # Wisconsin breast cancer, written to a CSV file first
    python examples/tabular_csv.py --data FILE.csv --target COLUMN

Columns of text become one feature per category. The file that is written needs scikit-learn, which ships the data, and pandas.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import treadle
from treadle import nn, optim
from treadle.data import DataLoader, TensorDataset, read_csv
from treadle.models import MLP
from treadle.training import EarlyStopping, confusion_matrix, fit, predict


def write_breast_cancer(path: Path) -> None:
    """The 569 biopsies that scikit-learn ships as a file with a header, the diagnosis in its last column."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer(as_frame=True)
    frame = data.frame.drop(columns="target")
    frame["diagnosis"] = data.target_names[data.target]
    frame.to_csv(path, index=False)


def split(rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers to train on (60 %), to decide when to stop by (20 %), and to test on (20 %)."""
    order = rng.permutation(rows)
    return order[: rows * 3 // 5], order[rows * 3 // 5 : rows * 4 // 5], order[rows * 4 // 5 :]


def train(path: Path, target: str, seed: int, epochs: int) -> float:
    """Trains on a file, prints what came of it, and returns the accuracy on the test rows."""
    treadle.manual_seed(seed)
    table = read_csv(path, target)
    classes = table.schema.classes
    if classes is None:
        raise SystemExit(f"{path}: expected classes in column {target!r}, got numbers to predict")
    parts = split(len(table.features), np.random.default_rng(seed))
    mean, std = table.features[parts[0]].mean(axis=0), table.features[parts[0]].std(axis=0)
    features = ((table.features - mean) / np.where(std > 0, std, 1)).astype(np.float32)
    train_rows, stop_rows, test_rows = (TensorDataset(features[part], table.target[part]) for part in parts)

    model = MLP(features.shape[1], (64, 64), len(classes), drop_prob=0.2)
    print(treadle.summary(model, (32, features.shape[1])), end="\n\n")
    history = fit(
        model,
        DataLoader(train_rows, batch_size=32, shuffle=True, drop_last=True),
        DataLoader(stop_rows, batch_size=256),
        loss=nn.CrossEntropyLoss(),
        optimizer=optim.AdamW(model.parameters(), lr=1e-3),
        epochs=epochs,
        early_stopping=EarlyStopping(patience=15),
        progress=False,
    )
    counts = confusion_matrix(predict(model, test_rows[:][0]), table.target[parts[2]], len(classes))
    right = counts.trace() / counts.sum()
    print(f"{len(history)} epochs in {sum(history['seconds']):.2f} s; {right:.1%} of {counts.sum()} test rows right")
    width = max(map(len, classes))
    for name, row in zip(classes, counts, strict=True):
        print(f"  {name.rjust(width)} taken for " + ", ".join(f"{other} {n}" for other, n in zip(classes, row, strict=True)))
    return float(right)


def main(arguments: list[str] | None = None) -> float:
    """Trains on the file that was named, or on one written for it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="a CSV file with a header (default: the breast cancer data)")
    parser.add_argument("--target", default="diagnosis", help="the column to predict (default: diagnosis)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="at most 10 epochs")
    options = parser.parse_args(arguments)
    epochs = 10 if options.quick else 200
    if options.data:
        return train(options.data, options.target, options.seed, epochs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "breast_cancer.csv"
        write_breast_cancer(path)
        return train(path, options.target, options.seed, epochs)


if __name__ == "__main__":
    main()
