"""The options of `treadle train` and their defaults, in one place for the parser, the run and the folder it leaves."""

from __future__ import annotations

from typing import Any

__all__ = ["DECAYS", "DEFAULTS", "FREE", "LEAST", "OPTIMIZERS", "RATES", "SCHEDULES"]

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
    "weight_decay": None,
    "hidden": 100,
    "blocks": 3,
    "dropout": 0.1,
    "seed": 0,
    "threads": None,
    "out": "treadle-run",
}

# The least that whole numbers may be.
LEAST = {"epochs": 1, "batch_size": 2, "hidden": 2, "blocks": 0, "seed": 0}

# Peak learning rates when --lr is not given.
RATES = {"sgd": 0.1, "adam": 5e-3, "adamw": 5e-3, "rmsprop": 1e-3}

# Weight decays when --weight-decay is not given: only AdamW keeps it apart from the gradient.
DECAYS = {"sgd": 0.0, "adam": 0.0, "adamw": 0.01, "rmsprop": 0.0}

# What may differ between a run and its continuation: it does not change what is computed, or only for how long. The data may lie
# anywhere, as a digest says whether it is the same.
FREE = frozenset({"data", "epochs", "threads", "out"})
