"""Recording switched off and on: `no_grad` and `enable_grad`, as context managers and as decorators."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

from treadle._core import Tensor, _checkpoint, _set_grad_enabled, default_generator, grad, is_grad_enabled

__all__ = ["checkpoint", "enable_grad", "grad", "is_grad_enabled", "no_grad", "set_grad_enabled"]

P = ParamSpec("P")
R = TypeVar("R")


class set_grad_enabled:
    """Records operations inside, or does not, on this thread; what was is restored on leaving.

    Args:
        mode: Whether to record.

    Example:
        >>> with treadle.set_grad_enabled(False):
        ...     y = model(x)
    """

    def __init__(self, mode: bool) -> None:
        self._mode = bool(mode)
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(_set_grad_enabled(self._mode))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _set_grad_enabled(self._before.pop())

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Wraps a function so that every call of it runs inside."""
        mode = self._mode

        @functools.wraps(function)
        def inside(*args: P.args, **kwargs: P.kwargs) -> R:
            with set_grad_enabled(mode):
                return function(*args, **kwargs)

        return inside


class no_grad(set_grad_enabled):
    """Operations inside are not recorded, so they cost no memory and results do not require grad.

    Example:
        >>> with treadle.no_grad():
        ...     accuracy = (model(x).argmax(1) == y).float().mean()
    """

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(set_grad_enabled):
    """Operations inside are recorded, also within `no_grad`."""

    def __init__(self) -> None:
        super().__init__(True)


def checkpoint(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Runs `function(*inputs)` and, in backward, runs it again instead of keeping what it saved.

    Trades a second forward for memory. Gradients reach the inputs and every parameter the function uses; running statistics
    move once; dropout that draws from the default generator draws the same both times.

    Args:
        function: Computes one Tensor from `inputs`; it must compute the same when it is called again.
        *inputs: Tensors.

    Returns:
        What the function returned.

    Raises:
        TypeError: An input or the result is not a Tensor.

    Example:
        >>> y = treadle.nn.checkpoint(block, x)

    Source: Chen et al. 2016, "Training deep nets with sublinear memory cost".
    """
    generator = default_generator()
    start = generator.get_state()
    done = False

    def again(*xs: Tensor) -> Tensor:
        nonlocal done
        if not done:
            done = True
            return function(*xs)
        now = generator.get_state()
        generator.set_state(start)
        try:
            return function(*xs)
        finally:
            generator.set_state(now)

    return _checkpoint(again, *inputs)
