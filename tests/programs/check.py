"""Whether a program agrees with NumPy in its values and, in float64, with differences in its gradient."""

from __future__ import annotations

import numpy as np

import treadle
from tests.programs.program import Leaf, Program
from treadle import Tensor

#: Half of the distance of the larger difference; the smaller is half of it.
STEP = 2e-5


def tensor(leaf: Leaf, dtype: str | None = None) -> Tensor:
    """The leaf as a view with its layout."""
    x = leaf.array.astype(dtype or leaf.array.dtype)
    if leaf.layout == "transposed" and x.ndim > 1:
        return treadle.tensor(np.ascontiguousarray(x.T)).T
    if leaf.layout == "reversed" and x.ndim:
        return treadle.tensor(x[::-1].copy())[::-1]
    if leaf.layout == "strided" and x.ndim:
        return treadle.tensor(np.repeat(x, 2, axis=-1))[..., ::2]
    return treadle.tensor(x)


def check_values(program: Program) -> None:
    """Every step against NumPy, from the numbers treadle had."""
    values = [tensor(leaf) for leaf in program.leaves]
    for leaf, value in zip(program.leaves, values, strict=True):
        np.testing.assert_array_equal(value.numpy(), leaf.array)
    for step in program.steps:
        inputs = [values[i] for i in step.inputs]
        got = step.treadle(*inputs)
        arrays = [x.numpy() for x in inputs]
        want = np.asarray(step.numpy(*arrays))
        assert got.shape == want.shape, f"{step.name}: {got.shape} and {want.shape}"
        assert got.dtype == want.dtype.name, f"{step.name}: {got.dtype} and {want.dtype}"
        if want.dtype.kind == "f":
            # The error of one operation is relative to what went into it: sums may cancel.
            scale = max((float(np.abs(x.astype(np.float64)).max(initial=0)) for x in arrays), default=0.0) + float(
                np.abs(want).max(initial=0)
            )
            exact = want.dtype == np.float64 and all(x.dtype != np.float32 for x in arrays)
            np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=scale * (1e-12 if exact else 5e-6), err_msg=step.name)
        else:
            np.testing.assert_array_equal(got.numpy(), want, err_msg=step.name)
        values.append(got)


def _sinks(program: Program) -> list[int]:
    """Values that nothing was made of."""
    used = {i for step in program.steps for i in step.inputs}
    return [i for i in range(len(program.leaves), len(program.leaves) + len(program.steps)) if i not in used]


def _run(program: Program, leaves: list[np.ndarray]) -> list[np.ndarray]:
    values = list(leaves)
    for step in program.steps:
        inputs = [values[i] for i in step.inputs]
        values.append(inputs[0].astype(np.float64) if step.narrows else np.asarray(step.numpy(*inputs)))
    return values


def check_gradient(program: Program, seed: int) -> bool | None:
    """The gradient in a random direction against differences; None where there is none, False at a kink, where there are several."""
    chance = np.random.default_rng(seed)
    wide = [x.array.astype(np.float64) if x.array.dtype.kind == "f" else x.array for x in program.leaves]
    leaves = [tensor(x, w.dtype.name).detach() for x, w in zip(program.leaves, wide, strict=True)]
    wanted = [i for i, x in enumerate(leaves) if x.dtype.is_floating_point]
    for i in wanted:
        leaves[i].requires_grad_()
    values = list(leaves)
    for step in program.steps:
        inputs = [values[i] for i in step.inputs]
        values.append(inputs[0].double() if step.narrows else step.treadle(*inputs))
    sinks = [i for i in _sinks(program) if values[i].requires_grad and values[i].size]
    if not sinks:
        return None
    weights = {i: chance.normal(size=values[i].shape) for i in sinks}
    ways = {i: chance.normal(size=wide[i].shape) for i in wanted}
    outputs = [values[i] for i in sinks]
    grads = treadle.grad(outputs, [leaves[i] for i in wanted], [treadle.tensor(weights[i]) for i in sinks], allow_unused=True)
    slopes = [float((g.numpy() * ways[i]).sum()) for i, g in zip(wanted, grads, strict=True) if g is not None]
    slope = sum(slopes)

    def value(step: float) -> tuple[float, float]:
        moved = [x + step * ways[i] if i in ways else x for i, x in enumerate(wide)]
        after = _run(program, moved)
        return float(sum((weights[i] * after[i]).sum() for i in sinks)), float(
            sum(np.abs(weights[i] * after[i]).sum() for i in sinks)
        )

    (here, size), ahead, behind = value(0), value(STEP)[0], value(-STEP)[0]
    near_ahead, near_behind = value(STEP / 2)[0], value(-STEP / 2)[0]
    coarse, fine = (ahead - behind) / (2 * STEP), (near_ahead - near_behind) / STEP
    room = 1e-6 * (1 + size + sum(map(abs, slopes)) + abs(fine))
    bent = abs((ahead - here) - (here - behind)) / STEP
    if abs(coarse - fine) > room or bent > 100 * STEP * (1 + size + abs(fine)):
        return False
    best = fine + (fine - coarse) / 3
    assert abs(slope - best) <= room, f"gradient: {slope} and by differences {best} ± {room}"
    return True
