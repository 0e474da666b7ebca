"""What parameters and data of estimators must be, where scikit-learn does not look, checked at the beginning of `fit`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

__all__ = ["check_name", "check_numbers", "check_parameters"]


# What NumPy makes numbers of where they stand among objects; Python's own dates it refuses.
_TIMES = (np.datetime64, np.timedelta64)


class _Rule(NamedTuple):
    holds: Callable[[Any], bool]
    wanted: str


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _between(low: float, high: float, wanted: str) -> _Rule:
    """A number in [low, high]; infinities are none."""

    def holds(value: Any) -> bool:
        number = isinstance(value, Real) and not isinstance(value, bool)
        return number and math.isfinite(value) and low <= float(value) <= high

    return _Rule(holds, wanted)


_SWITCH = _Rule(lambda v: isinstance(v, bool | np.bool_), "True or False")
_COUNT = _Rule(lambda v: _whole(v) and v >= 1, "a whole number of at least 1")
_RULES = {
    "alpha": _between(0, math.inf, "a number of at least 0"),
    "batch_size": _Rule(lambda v: v == "auto" if isinstance(v, str) else _COUNT.holds(v), "'auto' or a whole number of at least 1"),
    "learning_rate_init": _between(math.ulp(0.0), math.inf, "a number above 0"),
    "power_t": _between(0, math.inf, "a number of at least 0"),
    "max_iter": _COUNT,
    "shuffle": _SWITCH,
    "tol": _between(0, math.inf, "a number of at least 0"),
    "early_stopping": _SWITCH,
    "validation_fraction": _between(math.ulp(0.0), math.nextafter(1.0, 0.0), "a number between 0 and 1"),
    "n_iter_no_change": _Rule(lambda v: _COUNT.holds(v) or v == math.inf, "a whole number of at least 1, or infinity"),
    "momentum": _between(0, 1, "a number in [0, 1]"),
    "nesterovs_momentum": _SWITCH,
    "batch_norm": _SWITCH,
    "dropout": _between(0, 1, "a number in [0, 1]"),
    "residual": _SWITCH,
    "scale_target": _SWITCH,
    "verbose": _Rule(lambda v: _SWITCH.holds(v) or (_whole(v) and v >= 0), "True, False or a whole number of at least 0"),
    "warm_start": _SWITCH,
}


def check_parameters(estimator: Any) -> None:
    """Looks at every parameter that has a rule here.

    Raises:
        ValueError: One is not what it must be.
    """
    for name, value in estimator.get_params(deep=False).items():
        rule = _RULES.get(name)
        if rule is not None and not rule.holds(value):
            raise ValueError(f"{name}: expected {rule.wanted}, got {value!r}")


def check_name(parameter: str, value: Any, names: Iterable[str]) -> None:
    """Looks at a parameter that is one of some names.

    Raises:
        ValueError: It is none of them.
    """
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{parameter}: expected one of {sorted(names)}, got {value!r}")


def check_numbers(name: str, values: Any) -> None:
    """Looks for dates and durations, which NumPy would make nanoseconds, microseconds or days of.

    Raises:
        TypeError: There are some.
    """
    table = hasattr(values, "columns") and hasattr(values, "dtypes")  # of pandas, whose types have NumPy's kinds, or polars
    dtypes = list(values.dtypes) if table else [np.asarray(values).dtype]
    found = next(filter(_temporal, dtypes), None)
    if found is None and any(getattr(dtype, "kind", None) == "O" for dtype in dtypes):
        found = next((value.dtype for value in np.asarray(values).flat if isinstance(value, _TIMES)), None)
    if found is not None:
        raise TypeError(f"{name}: expected numbers, got {found}; make numbers of dates first, such as days since one of them")


def _temporal(dtype: Any) -> bool:
    return getattr(dtype, "kind", None) in ("M", "m") or (hasattr(dtype, "is_temporal") and dtype.is_temporal())
