"""Programs: leaves and steps, drawn so that every step is valid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.programs.steps import FAMILIES, Draw, Step
from tests.references import DTYPES

#: Elements of one value, so that ten thousand programs take minutes.
ROOM = 4000


@dataclass(frozen=True)
class Leaf:
    """An input: a view of numbers of one element type."""

    array: np.ndarray
    layout: str


@dataclass(frozen=True)
class Program:
    """Leaves first, then the result of each step, numbered through."""

    leaves: list[Leaf]
    steps: list[Step]

    def __repr__(self) -> str:
        lines = [f"v{i} = {x.array.dtype}{x.array.shape} {x.layout}" for i, x in enumerate(self.leaves)]
        for i, step in enumerate(self.steps, len(self.leaves)):
            lines.append(f"v{i} = {step.name}({', '.join(f'v{j}' for j in step.inputs)})")
        return "\n".join(["", *lines])


def _leaf(draw: Draw) -> Leaf:
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 4, 5, 17, 0]), max_size=3)))
    dtype = draw(st.sampled_from(["float32", "float64", "float32", "float64", *DTYPES]))
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    layout = draw(st.sampled_from(["plain", "transposed", "reversed", "strided"]))
    if dtype.startswith("float"):
        low = draw(st.sampled_from([-2.0, 0.3]))
        array = chance.uniform(low, 2.0, shape).astype(dtype)
    else:
        array = chance.integers(0, 2 if dtype == "bool" else 9, shape).astype(dtype)
    return Leaf(array, layout)


@st.composite
def programs(draw: Draw) -> Program:
    """Programs of one to four leaves and one to ten steps."""
    leaves = [_leaf(draw) for _ in range(draw(st.integers(1, 4)))]
    values, steps = [leaf.array for leaf in leaves], list[Step]()
    for _ in range(draw(st.integers(1, 10))):
        step = draw(st.sampled_from(FAMILIES))(draw, values)
        if step is None:
            continue
        result: Any = np.asarray(step.numpy(*(values[i] for i in step.inputs)))
        if result.size <= ROOM:
            steps.append(step)
            values.append(result)
    return Program(leaves, steps)
