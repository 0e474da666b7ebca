"""Checks that layers make when they are built: `op: expected …, got …`, before anything exists."""

from __future__ import annotations

from typing import Any

__all__ = ["at_least", "probability"]


def at_least(op: str, name: str, value: Any, low: int) -> int:
    """`value` as an int of at least `low`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{op}: expected {name} as an int, got {type(value).__name__}")
    if value < low:
        raise ValueError(f"{op}: expected {name} of at least {low}, got {value}")
    return int(value)


def probability(op: str, name: str, value: float) -> float:
    """`value` as a float in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{op}: expected {name} in [0, 1], got {value}")
    return float(value)
