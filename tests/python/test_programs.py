"""Random programs against NumPy, the short form of `python -m tests.programs`; and that a wrong step would be seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import treadle
from tests.programs.check import check_gradient, check_values
from tests.programs.program import Leaf, Program
from tests.programs.run import run
from tests.programs.steps import Step
from treadle import Tensor


def test_three_hundred_programs() -> None:
    result = run(300, 1)
    assert result.programs >= 300
    assert result.gradients > 150
    assert len(result.names) > 40


def program(function: Callable[[Tensor], Tensor], dtype: str) -> Program:
    x = np.linspace(0.1, 1.5, 12).reshape(3, 4).astype(dtype)
    return Program([Leaf(x, "transposed")], [Step("square", (0,), function, np.square)])


def detached(x: Tensor) -> Tensor:
    return x * x.detach()


def test_a_wrong_value_type_or_gradient_is_seen() -> None:
    check_values(program(treadle.ops.square, "float32"))
    assert check_gradient(program(treadle.ops.square, "float32"), 0)
    with pytest.raises(AssertionError, match="square"):
        check_values(program(lambda x: x * x * 1.0001, "float32"))
    with pytest.raises(AssertionError, match="float64 and float32"):
        check_values(program(lambda x: (x * x).double(), "float32"))
    with pytest.raises(AssertionError, match="gradient"):
        check_gradient(program(detached, "float64"), 0)
