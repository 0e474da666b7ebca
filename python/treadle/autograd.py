"""Recording switched off and on, functions with gradients of their own, and the check of gradients."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from treadle._core import (
    Generator,
    Tensor,
    _checkpoint,
    _custom,
    _held,
    _set_default_generator,
    _set_grad_enabled,
    default_generator,
    grad,
    is_grad_enabled,
)

if TYPE_CHECKING:
    from treadle.gradcheck import gradcheck, gradgradcheck

__all__ = [
    "Context",
    "Function",
    "checkpoint",
    "enable_grad",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "is_grad_enabled",
    "no_grad",
    "set_grad_enabled",
]

P = ParamSpec("P")
R = TypeVar("R")


def __getattr__(name: str) -> Any:
    """Loads the check of gradients the first time it is asked for."""
    if name in ("gradcheck", "gradgradcheck"):
        from treadle import gradcheck

        return getattr(gradcheck, name)
    raise AttributeError(f"module 'treadle.autograd' has no attribute {name!r}")


class _Recording:
    """Records operations inside, or does not, on this thread; what was is restored on leaving."""

    def __init__(self, mode: bool) -> None:
        self._mode = bool(mode)
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(_set_grad_enabled(self._mode))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _set_grad_enabled(self._before.pop())

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Wraps a function so that every call of it runs inside, and every part of one with `yield`."""
        mode = self._mode
        if inspect.isgeneratorfunction(function):
            parts: Callable[P, R] = _in_parts(mode, function)
            return parts

        @functools.wraps(function)
        def inside(*args: P.args, **kwargs: P.kwargs) -> R:
            before = _set_grad_enabled(mode)
            try:
                return function(*args, **kwargs)
            finally:
                _set_grad_enabled(before)

        return inside


def _in_parts(mode: bool, function: Any) -> Any:
    """A function with `yield` whose body runs inside, and what is between its parts as before."""

    @functools.wraps(function)
    def inside(*args: Any, **kwargs: Any) -> Any:
        generator = function(*args, **kwargs)
        step, given = generator.send, None
        while True:
            try:
                with _Recording(mode):
                    made = step(given)
            except StopIteration as end:
                return end.value
            try:
                step, given = generator.send, (yield made)
            except GeneratorExit:
                with _Recording(mode):
                    generator.close()
                raise
            except BaseException as error:
                step, given = generator.throw, error

    return inside


class set_grad_enabled(_Recording):
    """Records operations from here on, or does not, on this thread; with `with`, until the end of the block.

    Args:
        mode: Whether to record.

    Example:
        >>> with treadle.set_grad_enabled(False):
        ...     y = model(x)
        >>> treadle.set_grad_enabled(False)  # until it is set again
    """

    def __init__(self, mode: bool) -> None:
        super().__init__(mode)
        self._first = [_set_grad_enabled(self._mode)]

    def __enter__(self) -> None:
        super().__enter__()
        if self._first:
            self._before[-1] = self._first.pop()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Wraps a function so that every call of it runs inside; here it is as it was before."""
        if self._first:
            _set_grad_enabled(self._first.pop())
        return super().__call__(function)


class no_grad(_Recording):
    """Operations inside are not recorded, so they cost no memory and results do not require grad.

    Example:
        >>> with treadle.no_grad():
        ...     accuracy = (model(x).argmax(1) == y).float().mean()
    """

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(_Recording):
    """Operations inside are recorded, also within `no_grad`."""

    def __init__(self) -> None:
        super().__init__(True)


@contextmanager
def drawing_from(generator: Generator) -> Iterator[None]:
    """What draws from the default generator inside, on this thread, draws from this one."""
    before = _set_default_generator(generator)
    try:
        yield
    finally:
        _set_default_generator(before)


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
    start = default_generator().get_state()
    done = False

    def again(*xs: Tensor) -> Tensor:
        nonlocal done
        if not done:
            done = True
            return function(*xs)
        own = Generator()
        own.set_state(start)
        with drawing_from(own):
            return function(*xs)

    return _checkpoint(again, *inputs)


class Context:
    """What `forward` of a `Function` leaves for its `backward`; any attribute may be set as well.

    Attributes:
        needs_input_grad: For each argument of `forward`, whether a gradient is wanted.
    """

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self._given: tuple[Tensor, ...] = ()
        self._saved: tuple[Tensor | None, ...] = ()
        self._output: Tensor | None = None

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keeps arguments or the output; only these are differentiated through where a second derivative is asked for.

        They are kept as they are now: an optimizer's step or `copy_` afterwards changes the tensors, not what was saved.

        Raises:
            TypeError: Something is not a Tensor.
        """
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise TypeError(f"save_for_backward: expected Tensors, got {type(tensor).__name__}")
        self._given = tensors
        self._saved = tuple(_held(tensor) for tensor in tensors)

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]:
        """What was saved, in that order."""
        found = (self._output if tensor is None else tensor for tensor in self._saved)
        return tuple(tensor for tensor in found if tensor is not None)

    def _without(self, output: Tensor) -> bool:
        """Forgets the output, which would hold itself; whether it was saved."""
        own = [tensor is output for tensor in self._given]
        self._given = ()
        self._saved = tuple(None if is_output else tensor for is_output, tensor in zip(own, self._saved, strict=True))
        return any(own)


class Function:
    """A differentiable function with a gradient of one's own: a subclass defines `forward` and `backward`, `apply` calls it.

    Gradients of any order follow where `backward` is made of differentiable operations on `ctx.saved_tensors`.

    Example:
        >>> class Cube(treadle.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x * x * x
        ...
        ...     @staticmethod
        ...     def backward(ctx, grad_output):
        ...         (x,) = ctx.saved_tensors
        ...         return 3 * x * x * grad_output
        >>> y = Cube.apply(treadle.tensor([2.0], requires_grad=True))

    Source: the interface of `torch.autograd.Function`, with one Tensor as output.
    """

    @staticmethod
    def forward(ctx: Context, *args: Any) -> Tensor:
        """Computes the output from Tensors and other arguments; nothing in it is recorded."""
        raise TypeError("function: expected a class that defines forward, got one without it")

    @staticmethod
    def backward(ctx: Context, grad_output: Tensor) -> Any:
        """Answers the gradient of each argument of `forward`, of its shape, or None; one alone needs no tuple."""
        raise TypeError("function: expected a class that defines backward, got one without it")

    @classmethod
    def apply(cls, *args: Any) -> Tensor:
        """Calls the function.

        Args:
            *args: The arguments of `forward`.

        Raises:
            TypeError: `forward` gives something else than a Tensor; in backward: a gradient that is not a float Tensor.
            ValueError: In backward: more or fewer gradients than arguments, one of another shape than its argument, or one
                for an argument that is not a Tensor.
        """
        ctx = Context(tuple(isinstance(arg, Tensor) and arg.requires_grad for arg in args))
        with no_grad():
            output = cls.forward(ctx, *args)
        if not isinstance(output, Tensor):
            raise TypeError(f"function: expected a Tensor from {cls.__name__}.forward, got {type(output).__name__}")
        keep = ctx._without(output)
        tensors = [isinstance(arg, Tensor) for arg in args]  # rather than the arguments, which would stay as long as the graph

        def backward(gradient: Tensor, kept: Tensor | None) -> list[Tensor | None]:
            ctx._output = kept
            try:
                answer = cls.backward(ctx, gradient)
            finally:
                ctx._output = None
            answers = answer if isinstance(answer, tuple | list) else (answer,)
            if len(answers) != len(tensors):
                raise ValueError(f"function: expected {len(tensors)} gradients from {cls.__name__}.backward, got {len(answers)}")
            for i, (is_tensor, given) in enumerate(zip(tensors, answers, strict=True)):
                if given is not None and not is_tensor:
                    got = type(given).__name__
                    raise ValueError(f"function: expected None as gradient of argument {i} of {cls.__name__}, got {got}")
            return [given for is_tensor, given in zip(tensors, answers, strict=True) if is_tensor]

        return _custom(output, [arg for arg in args if isinstance(arg, Tensor)], keep, backward)
