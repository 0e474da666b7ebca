"""Views of more elements than memory: reductions of them neither abort nor ask for memory by their size."""

from __future__ import annotations

import subprocess
import sys

import pytest

import treadle


def test_a_long_view_is_summed() -> None:
    assert float(treadle.ones(1, dtype="float64").broadcast_to(2**31).sum()) == 2.0**31
    assert treadle.ones(4).broadcast_to(2**28, 4).sum(0).tolist() == [2.0**28] * 4


@pytest.mark.parametrize(
    "call",
    ["broadcast_to(2**50).sum()", "broadcast_to(2**50).max()", "broadcast_to(2**44, 16).mean(0)", "broadcast_to(2**50).var()"],
)
def test_an_endless_reduction_goes_on_until_it_is_killed(call: str) -> None:
    code = f"import sys, treadle; sys.path[:] = {sys.path!r}; treadle.ones(1).{call}"
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", code], timeout=1.5, check=False, capture_output=True)


@pytest.mark.parametrize("shape", [(2**62,), (2**40, 2**20), (2**63 - 1, 2)])
def test_shapes_beyond_memory_are_refused(shape: tuple[int, ...]) -> None:
    for make in (treadle.zeros, treadle.ones(1).broadcast_to):
        with pytest.raises(MemoryError, match="more elements than memory"):
            make(*shape)
