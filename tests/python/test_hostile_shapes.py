"""Views of more elements than memory: reductions of them neither abort nor ask for memory by their size."""

from __future__ import annotations

import subprocess
import sys

import pytest

import treadle
from treadle import nn
from treadle.nn import functional


def test_a_long_view_is_summed() -> None:
    assert float(treadle.ones(1, dtype="float64").broadcast_to(2**31).sum()) == 2.0**31
    assert treadle.ones(4).broadcast_to(2**28, 4).sum(0).tolist() == [2.0**28] * 4


@pytest.mark.parametrize(
    "call",
    [
        "broadcast_to(2**50).sum()",
        "broadcast_to(2**50).max()",
        "broadcast_to(2**44, 16).mean(0)",
        "broadcast_to(2**50).any()",
        "bool().broadcast_to(2**50).prod()",
        "long().broadcast_to(16, 2**46).all(1)",
    ],
)
def test_an_endless_reduction_goes_on_until_it_is_killed(call: str) -> None:
    code = f"import sys, treadle; sys.path[:] = {sys.path!r}; treadle.ones(1).{call}"
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", code], timeout=1.5, check=False, capture_output=True)


@pytest.mark.parametrize("shape", [(2**62,), (2**40, 2**20), (2**63 - 1, 2)])
def test_shapes_beyond_memory_are_refused(shape: tuple[int, ...]) -> None:
    for make in (treadle.zeros, treadle.ones(1).broadcast_to):
        with pytest.raises(MemoryError, match="more elements than memory can address, got"):
            make(*shape)


def view(*shape: int) -> treadle.Tensor:
    """Ones without memory for them."""
    return treadle.ones(1).broadcast_to(*shape)


BEYOND = {
    "add": lambda: view(2**40, 1) + view(1, 2**40),
    "maximum": lambda: treadle.ops.maximum(view(2**40, 1), view(1, 2**40)),
    "matmul": lambda: view(2**40, 1) @ view(1, 2**40),
    "outer": lambda: view(2**32, 1, 1) * view(1, 2**32, 1) * view(1, 1, 2**32),
    "where": lambda: treadle.where(view(2**40, 1) > 0, view(1, 2**40), 0.0),
    "stack": lambda: treadle.stack([view(2**59)] * 64),
    "concatenate": lambda: treadle.concatenate([view(2**59)] * 64),
    "exp": lambda: view(2**55).exp(),
    "double": lambda: view(2**55).double(),
    "one_hot": lambda: treadle.ops.one_hot(treadle.tensor([0]), 2**62),
    "eye": lambda: treadle.eye(2**33, 2**33),
    "arange": lambda: treadle.arange(2**62),
    "arange of floats": lambda: treadle.arange(0.0, 1e300, 1e-300),
    "randperm": lambda: treadle.randperm(2**62),
    "rand": lambda: treadle.rand(2**40, 2**40),
    "take": lambda: view(4, 2**40).take(treadle.zeros(2**24).long(), 0),
    "embedding": lambda: nn.Embedding(2**40, 2**40),
    "linear": lambda: nn.Linear(2**40, 2**40),
    "batch norm": lambda: nn.BatchNorm1d(4)(view(2**50, 4)),
    "flatten": lambda: view(2**25, 2**25).permute(1, 0).flatten().exp(),
    "sum of nothing": lambda: treadle.zeros(0, 2**62).sum(0),
    "index by arrays": lambda: treadle.zeros(4, 4)[treadle.zeros(2**21, 1).long(), treadle.zeros(1, 2**21).long()],
    "assignment by arrays": lambda: treadle.zeros(4, 4).__setitem__(
        (treadle.zeros(2**21, 1).long(), treadle.zeros(1, 2**21).long()), 1.0
    ),
    "split": lambda: view(2**42).split(1),
    "split into empty parts": lambda: view(2**42, 0).split(1),
    "batch norm of nothing": lambda: functional.batch_norm(view(0, 2**42), None, None, training=True),
}


@pytest.mark.parametrize("name", BEYOND)
def test_results_beyond_memory_are_refused(name: str) -> None:
    with pytest.raises(MemoryError, match="memory"):
        BEYOND[name]()


@pytest.mark.parametrize("shape", [(0, 2**62, 2**62), (2**62, 2**62, 0), (2**40, 0, 2**40)])
def test_sizes_beside_a_zero_do_not_overflow(shape: tuple[int, ...]) -> None:
    x = treadle.zeros(*shape)
    assert x.shape == shape
    assert x.size == 0
    assert x.T.shape == shape[::-1]
    assert (x.T + 1).exp().size == 0
    assert x.reshape(0).shape == (0,)
    assert x.sum().item() == 0
    assert x[..., ::-1].shape == shape
