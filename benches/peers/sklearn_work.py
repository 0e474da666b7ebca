"""The work in scikit-learn, where it has the job: a step of an MLP without BatchNorm, and prediction."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier

from benches.peers.inputs import normal

Work = Callable[[], Any]


def threads(n: int | None) -> None:
    """BLAS threads are set in the environment before the process starts."""


def _fitted(h: int, batch: int, d: int, depth: int, optimizer: str) -> tuple[MLPClassifier, Any, Any]:
    x = normal((max(batch, 10), d))
    y = np.arange(len(x)) % 10
    model = MLPClassifier((h,) * depth, solver=optimizer, batch_size=len(x), alpha=0.0)
    warnings.simplefilter("ignore")
    model.partial_fit(x, y, classes=np.arange(10))
    return model, x, y


def step(h: int, batch: int, d: int, optimizer: str, norm: bool, depth: int = 2, variant: str = "") -> Work | None:
    """One training step."""
    if norm:
        return None
    model, x, y = _fitted(h, batch, d, depth, optimizer)
    return lambda: model.partial_fit(x, y)


def inference(h: int, d: int, batch: int) -> Work:
    """A forward in evaluation (without BatchNorm)."""
    model, x, _ = _fitted(h, 64, d, 2, "adam")
    rows = x[:batch]
    return lambda: model.predict_proba(rows)
