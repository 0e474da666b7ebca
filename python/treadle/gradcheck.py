"""Gradients checked against differences, in random directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from treadle._core import Tensor, _set_grad_enabled, grad
from treadle.checks import at_least

__all__ = ["gradcheck", "gradgradcheck"]


def gradcheck(
    function: Callable[..., Tensor],
    inputs: Tensor | Sequence[Tensor],
    eps: float = 1e-6,
    atol: float = 1e-6,
    rtol: float = 1e-5,
    trials: int = 3,
    seed: int = 0,
) -> bool:
    """Checks a gradient: its product with a random direction against the central difference along it.

    Args:
        function: Takes the inputs, gives a Tensor; it must give the same when called again.
        inputs: float64 Tensors; those that require grad are checked.
        eps: Half of the distance between the two points of the difference.
        atol: Largest absolute difference.
        rtol: Largest difference relative to the larger of the two numbers.
        trials: How many random directions, each with weights of its own over the outputs.
        seed: Of directions and weights.

    Returns:
        True.

    Raises:
        TypeError: An input that is not a Tensor or requires grad but is not float64.
        ValueError: No input requires grad, no trials, or a gradient is wrong: the message says by how much.

    Example:
        >>> x = treadle.randn(3, 4, dtype="float64").requires_grad_()
        >>> treadle.autograd.gradcheck(treadle.ops.tanh, x)
        True
    """
    xs, trials = _checked(inputs, "gradcheck"), at_least("gradcheck", "trials", trials, 1)
    chance = np.random.default_rng(seed)
    for trial in range(trials):
        ways = [Tensor(chance.normal(size=x.shape)) if x.requires_grad else None for x in xs]
        y = function(*xs)
        weights = Tensor(chance.normal(size=y.shape))
        wanted = [x for x in xs if x.requires_grad]
        grads = grad([y], wanted, [weights], allow_unused=True) if y.requires_grad else [None] * len(wanted)
        pairs = zip(grads, (way for way in ways if way is not None), strict=True)
        slope = sum(float((g * way).sum()) for g, way in pairs if g is not None)

        def value(step: float, ways: list[Tensor | None] = ways, weights: Tensor = weights) -> float:
            moved = [x.detach() if way is None else x.detach() + way * step for x, way in zip(xs, ways, strict=True)]
            return float((function(*moved) * weights).sum())

        difference = (value(eps) - value(-eps)) / (2 * eps)
        if not abs(slope - difference) <= atol + rtol * max(abs(slope), abs(difference)):
            raise ValueError(f"gradcheck: expected a slope of {difference:.9g} in direction {trial}, got {slope:.9g}")
    return True


def gradgradcheck(
    function: Callable[..., Tensor],
    inputs: Tensor | Sequence[Tensor],
    eps: float = 1e-6,
    atol: float = 1e-6,
    rtol: float = 1e-5,
    trials: int = 3,
    seed: int = 0,
) -> bool:
    """Checks a second derivative: `gradcheck` of a random combination of the function's gradients.

    Args, returns and raises: as `gradcheck`.

    Example:
        >>> x = treadle.randn(3, 4, dtype="float64").requires_grad_()
        >>> treadle.autograd.gradgradcheck(treadle.ops.tanh, x)
        True
    """
    xs = _checked(inputs, "gradgradcheck")
    chance = np.random.default_rng(seed + 1)
    y = function(*xs)
    weights = Tensor(chance.normal(size=y.shape)).requires_grad_()
    shares = [Tensor(chance.normal(size=x.shape)) for x in xs]
    watched = [i for i, x in enumerate(xs) if x.requires_grad]

    def first(*arguments: Tensor) -> Tensor:
        *points, weight = arguments
        points = [p if p.requires_grad or i not in watched else p.requires_grad_() for i, p in enumerate(points)]
        before = _set_grad_enabled(True)
        try:
            z = function(*points)
            grads = grad([z], [points[i] for i in watched], [weight], create_graph=True, allow_unused=True)
        finally:
            _set_grad_enabled(before)
        terms = [(g * shares[i]).sum() for i, g in zip(watched, grads, strict=True) if g is not None]
        combined: Tensor = sum(terms[1:], terms[0])
        return combined

    return gradcheck(first, [*xs, weights], eps, atol, rtol, trials, seed)


def _checked(inputs: Tensor | Sequence[Tensor], name: str) -> list[Tensor]:
    xs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    for x in xs:
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected Tensors, got {type(x).__name__}")
        if x.requires_grad and x.dtype != "float64":
            raise TypeError(f"{name}: expected float64, got {x.dtype}: differences need its precision")
    if not any(x.requires_grad for x in xs):
        raise ValueError(f"{name}: expected an input that requires grad, got none")
    return xs
