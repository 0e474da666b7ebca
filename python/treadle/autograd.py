"""Recording switched off and on, functions with gradients of their own, and the check of gradients."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
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
    grad,
    is_grad_enabled,
    randint,
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
        self._before: dict[int, list[bool]] = {}  # of each thread that is inside, as threads may share this

    def __enter__(self) -> None:
        before = self._before.setdefault(get_ident(), [])
        before.append(is_grad_enabled())
        try:
            _set_grad_enabled(self._mode)
        except BaseException:  # Ctrl-C: nobody leaves a block that was not entered
            _set_grad_enabled(before.pop())
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        before = self._before.get(get_ident())
        if before:  # a generator may be closed by a thread that did not enter the block
            _set_grad_enabled(before.pop())

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Wraps a function so that every call of it runs inside, and every part of one with `yield` or `await`."""
        mode = self._mode
        wrap: Any = _wrap(function)
        if wrap is not None:
            parts: Callable[P, R] = wrap(mode, function)
            return parts

        @functools.wraps(function)
        def inside(*args: P.args, **kwargs: P.kwargs) -> R:
            before = is_grad_enabled()
            try:
                _set_grad_enabled(mode)
                return function(*args, **kwargs)
            finally:
                _set_grad_enabled(before)

        return inside


def _wrap(function: Any) -> Any:
    """What wraps a function that runs in parts; None for one that does not."""
    if inspect.isgeneratorfunction(function):
        return _generator
    if inspect.iscoroutinefunction(function):
        return _coroutine
    return _async_generator if inspect.isasyncgenfunction(function) else None


@types.coroutine
def _in_parts(mode: bool, body: Any) -> Any:
    """Runs a generator, or what is awaited, inside; what is between its parts is as before."""
    step, given = body.send, None
    while True:
        try:
            with _Recording(mode):
                made = step(given)
        except StopIteration as end:
            return end.value
        try:
            step, given = body.send, (yield made)
        except GeneratorExit:
            with _Recording(mode):
                body.close()
            raise
        except BaseException as error:
            step, given = body.throw, error


def _generator(mode: bool, function: Any) -> Any:
    """A function with `yield`, in parts."""

    @functools.wraps(function)
    def inside(*args: Any, **kwargs: Any) -> Any:
        return (yield from _in_parts(mode, function(*args, **kwargs)))

    return inside


def _coroutine(mode: bool, function: Any) -> Any:
    """A function with `await`, in parts."""

    @functools.wraps(function)
    async def inside(*args: Any, **kwargs: Any) -> Any:
        return await _in_parts(mode, function(*args, **kwargs))

    return inside


def _async_generator(mode: bool, function: Any) -> Any:
    """A function with `yield` and `await`, in parts."""

    @functools.wraps(function)
    async def inside(*args: Any, **kwargs: Any) -> Any:
        body = function(*args, **kwargs)
        step, given = body.asend, None
        while True:
            try:
                made = await _in_parts(mode, step(given))
            except StopAsyncIteration:
                return
            try:
                step, given = body.asend, (yield made)
            except GeneratorExit:
                await _in_parts(mode, body.aclose())
                raise
            except BaseException as error:
                step, given = body.athrow, error

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
        self._first = {get_ident(): _set_grad_enabled(self._mode)}

    def __enter__(self) -> None:
        super().__enter__()
        thread = get_ident()
        if thread in self._first:
            self._before[thread][-1] = self._first.pop(thread)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Wraps a function so that every call of it runs inside; here it is as it was before."""
        if get_ident() in self._first:
            _set_grad_enabled(self._first.pop(get_ident()))
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
    before = None
    try:
        before = _set_default_generator(generator)
        yield
    finally:
        _set_default_generator(before)


def checkpoint(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Runs `function(*inputs)` and, in backward, runs it again instead of keeping what it saved.

    Trades a second forward for memory. Gradients reach the inputs and every parameter the function uses; running statistics
    move once. What draws from the default generator draws the same both times, whatever other threads draw: it draws from a
    generator of the call's own, whose seed is one draw of the default one.

    Args:
        function: Computes one Tensor from `inputs`; it must compute the same when it is called again. So it must not draw from
            generators that are given by name, as `Dropout(generator=…)` does: they go on, and gradients would be those of
            other draws. Nor may modules change between training and evaluation before backward has passed.
        *inputs: Tensors.

    Returns:
        What the function returned.

    Raises:
        TypeError: An input or the result is not a Tensor.

    Example:
        >>> y = treadle.nn.checkpoint(block, x)

    Source: Chen et al. 2016, "Training deep nets with sublinear memory cost".
    """
    seed: int | None = None

    def run(*xs: Tensor) -> Tensor:
        nonlocal seed
        if seed is None:
            seed = int(randint(0, 2**63 - 1, ()).item())
        with drawing_from(Generator(seed)):
            return function(*xs)

    return _checkpoint(run, *inputs)


class Context:
    """What `forward` of a `Function` leaves for its `backward`; any attribute may be set as well.

    Each call of `backward` gets a copy: what it sets is gone afterwards.

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

    def _without(self, output: Tensor, args: tuple[Any, ...]) -> bool:
        """Forgets the output, which would hold itself, unless it is an argument; whether it was saved."""
        is_argument = any(arg is output for arg in args)
        own = [tensor is output and not is_argument for tensor in self._given]
        self._given = ()
        self._saved = tuple(None if is_output else tensor for is_output, tensor in zip(own, self._saved, strict=True))
        return any(own)

    def _with(self, output: Tensor | None) -> Context:
        """A copy that knows the output: another backward may run at the same time, or inside this one."""
        own = Context.__new__(Context)
        vars(own).update(vars(self), _output=output)
        return own


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
        keep = ctx._without(output, args)
        tensors = [isinstance(arg, Tensor) for arg in args]  # rather than the arguments, which would stay as long as the graph

        def backward(gradient: Tensor, kept: Tensor | None) -> list[Tensor | None]:
            answer = cls.backward(ctx._with(kept), gradient)
            answers = answer if isinstance(answer, tuple | list) else (answer,)
            if len(answers) != len(tensors):
                raise ValueError(f"function: expected {len(tensors)} gradients from {cls.__name__}.backward, got {len(answers)}")
            for i, (is_tensor, given) in enumerate(zip(tensors, answers, strict=True)):
                if given is not None and not is_tensor:
                    got = type(given).__name__
                    raise ValueError(f"function: expected None as gradient of argument {i} of {cls.__name__}, got {got}")
            return [given for is_tensor, given in zip(tensors, answers, strict=True) if is_tensor]

        return _custom(output, [arg for arg in args if isinstance(arg, Tensor)], keep, backward)
