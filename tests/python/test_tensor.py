"""Tensors as Python meets them: what is in a cell and how it changes, numbers of every kind beside them, and views of nothing."""

from __future__ import annotations

import operator
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn, ops, optim
from treadle.nn import functional as F

T = treadle.tensor


def same(got: Any, want: Any) -> None:
    """One shape, one type, the same elements."""
    assert (got.shape, str(got.dtype)) == (np.shape(want), str(want.dtype))
    np.testing.assert_array_equal(got.numpy(), want)


# Cells --------------------------------------------------------------------------

ASSIGNED = {
    "itself": "x.data = x",
    "a list of itself": "x.data = [x]",
    "an object that reads it": "x.data = Reader()",
    "an array that NumPy casts, beside another thread": """
reading = threading.Thread(target=lambda: [x.shape for _ in range(200_000)])
reading.start()
while reading.is_alive():
    x.data = np.ones(100_000, np.float16)
""",
}


@pytest.mark.parametrize("assigned", ASSIGNED.values(), ids=ASSIGNED)
def test_data_may_read_what_it_replaces(assigned: str) -> None:
    code = f"""
import sys, threading
sys.path[:] = {sys.path!r}
import numpy as np, treadle
x = treadle.tensor([1.0, 2.0])
class Reader:
    def __array__(self, dtype=None, copy=None):
        return x.numpy() * 1
{assigned}
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


def test_a_frozen_parameter_keeps_its_place_in_graphs() -> None:
    layer, x = nn.Linear(4, 1), treadle.ones(3, 4)
    loss = layer(x).sum()
    layer.requires_grad_(False)
    held = layer(x)
    layer.requires_grad_(True)
    loss.backward()
    assert not held.requires_grad
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[3.0] * 4]


def test_a_frozen_parameter_keeps_its_gradient() -> None:
    weight = nn.Parameter(treadle.ones(2))
    (weight * 3).sum().backward()
    weight.requires_grad_(False)
    weight.copy_(T([5.0, 6.0]))
    assert weight.grad is not None
    assert weight.grad.tolist() == [3.0, 3.0]
    weight.requires_grad_(True)
    (weight * weight).sum().backward()
    assert weight.grad.tolist() == [13.0, 15.0]
    weight.requires_grad_(False)
    optim.SGD([weight], lr=0.1).zero_grad()
    assert weight.grad is None
