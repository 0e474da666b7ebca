"""Draws and checks programs, and counts what was checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.programs.check import check_gradient, check_values
from tests.programs.program import Program, programs


@dataclass
class Result:
    """How many programs were checked, and what was in them."""

    programs: int = 0
    steps: int = 0
    gradients: int = 0
    kinks: int = 0
    constant: int = 0
    names: Counter[str] = field(default_factory=Counter)


def run(count: int, chance: int) -> Result:
    """Checks `count` programs; the first that disagrees is made small and raised."""
    result = Result()

    @seed(chance)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(programs())
    def check(program: Program) -> None:
        with np.errstate(all="ignore"):
            check_values(program)
            found = check_gradient(program, result.programs)
        result.programs += 1
        result.steps += len(program.steps)
        result.names.update(step.name for step in program.steps)
        result.gradients += found is True
        result.kinks += found is False
        result.constant += found is None

    with np.errstate(all="ignore"):
        check()
    return result
