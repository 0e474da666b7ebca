"""The options of `treadle train` and their defaults, in one place for the parser, the run and the folder it leaves."""

from __future__ import annotations

from typing import Any

__all__ = ["DEFAULTS", "FREE", "OPTIMIZERS", "RATES", "SCHEDULES"]

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
SCHEDULES = ("none", "cosine", "step", "onecycle")

DEFAULTS: dict[str, Any] = {
    "data": "digits",
    "target": None,
    "epochs": 30,
    "batch_size": 32,
    "optimizer": "adamw",
    "lr": None,
    "schedule": "onecycle",
    "weight_decay": 0.01,
    "hidden": 100,
    "blocks": 3,
    "dropout": 0.1,
    "seed": 0,
    "threads": None,
    "out": "treadle-run",
}

# Peak learning rates when --lr is not given.
RATES = {"sgd": 0.1, "adam": 5e-3, "adamw": 5e-3, "rmsprop": 1e-3}

# What may differ between a run and its continuation: it does not change what is computed, or only for how long.
FREE = frozenset({"epochs", "threads", "out"})
