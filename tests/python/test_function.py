"""Functions with gradients of one's own, and the check of gradients."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import Tensor
from treadle.autograd import Context, Function, gradcheck, gradgradcheck


class Product(Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, y: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.scale = scale  # type: ignore[attr-defined]
        return x * y * scale

    @staticmethod
    def backward(ctx: Context, grad_output: Tensor) -> Any:
        x, y = ctx.saved_tensors
        scaled = grad_output * ctx.scale  # type: ignore[attr-defined]
        return scaled * y, scaled * x, None


class Exp(Function):
    """Saves its output."""

    @staticmethod
    def forward(ctx: Context, x: Tensor) -> Tensor:
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Context, grad_output: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return y * grad_output


def random(*shape: int, seed: int = 0) -> Tensor:
    return treadle.tensor(np.random.default_rng(seed).normal(size=shape)).requires_grad_()


def test_values_and_gradients_of_any_order() -> None:
    x, y = random(3, 4), random(3, 4, seed=1)
    assert gradcheck(lambda a, b: Product.apply(a, b, 2.5), [x, y])
    assert gradgradcheck(lambda a, b: Product.apply(a, b, 2.5), [x, y])
    assert gradcheck(Exp.apply, x)
    assert gradgradcheck(Exp.apply, x)
    z = Exp.apply(x)
    third = z.sum()
    for _ in range(3):
        (third,) = treadle.grad(third.sum(), [x], create_graph=True)
    np.testing.assert_allclose(third.numpy(), np.exp(x.numpy()), rtol=1e-14)


class Same(Function):
    """Saves its argument, which is its output as well; its gradient is that of x³."""

    @staticmethod
    def forward(ctx: Context, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Context, grad_output: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return 3 * x * x * grad_output


@pytest.mark.parametrize("leaf", [True, False])
def test_a_saved_argument_is_no_output_even_if_it_is_returned(leaf: bool) -> None:
    x = treadle.tensor([2.0], requires_grad=True)
    (first,) = treadle.grad([Same.apply(x if leaf else x * 1)], [x], create_graph=True)
    (second,) = treadle.grad([first], [x])
    assert [first.item(), second.item()] == [12.0, 12.0]


@pytest.mark.parametrize("where", ["inside", "thread"])
def test_a_backward_leaves_another_of_the_same_node_what_it_saved(where: str) -> None:
    x = random(3)
    grads: list[np.ndarray[Any, Any]] = []

    def other() -> None:
        grads.append(treadle.grad([y], [x], retain_graph=True)[0].numpy())

    class Twice(Exp):
        @staticmethod
        def backward(ctx: Context, grad_output: Tensor) -> Any:
            outer = not running
            running.append(None)
            if outer and where == "inside":
                other()
            elif outer:
                thread = threading.Thread(target=other)
                thread.start()
                thread.join()
            return Exp.backward(ctx, grad_output)

    running: list[None] = []
    y = Twice.apply(x).sum()
    other()
    assert len(grads) == 2
    for grad in grads:
        np.testing.assert_allclose(grad, np.exp(x.detach().numpy()), rtol=1e-14)


def test_it_is_one_node_between_others() -> None:
    x = random(5)
    y = Product.apply(x.tanh(), x, 2.0).sum()
    y.backward()
    v = x.numpy()
    np.testing.assert_allclose(x.grad.numpy(), 2 * (np.tanh(v) + v * (1 - np.tanh(v) ** 2)), rtol=1e-12)
    assert Product.apply(x, x, 1.0).grad_fn == "function"


@pytest.mark.parametrize("change", ["step", "copy_", "index"])
def test_what_was_saved_does_not_change_with_the_tensor(change: str) -> None:
    x = treadle.nn.Parameter([1.0, 2.0])
    y = Product.apply(x, x, 0.5).sum()
    if change == "step":
        x.grad = treadle.ones(2)
        sgd = treadle.optim.SGD([x], lr=1.0)
        sgd.step()
        sgd.zero_grad()
    elif change == "copy_":
        x.copy_([5.0, 5.0])
    else:
        with treadle.no_grad():
            x[0] = 7.0
    assert x.tolist() != [1.0, 2.0]
    y.backward()
    assert x.grad.tolist() == [1.0, 2.0]


def test_recording_is_off_in_every_part_of_a_function_with_yield() -> None:
    seen: list[Any] = []

    @treadle.no_grad()
    def parts(first: int) -> Any:
        try:
            seen.append((first, treadle.is_grad_enabled()))
            seen.append(((yield 1), treadle.is_grad_enabled()))
            yield 2
        except KeyError:
            seen.append(("thrown", treadle.is_grad_enabled()))
            yield 3
        finally:
            seen.append(("end", treadle.is_grad_enabled()))
        return 4

    running = parts(0)
    assert [next(running), running.send("sent"), running.throw(KeyError("x"))] == [1, 2, 3]
    assert treadle.is_grad_enabled()
    with pytest.raises(StopIteration) as end:
        next(running)
    assert end.value.value == 4
    assert seen == [(0, False), ("sent", False), ("thrown", False), ("end", False)]
    left = parts(1)
    next(left)
    left.close()
    assert seen[-1] == ("end", False)
    assert treadle.is_grad_enabled()


def test_recording_is_off_in_every_part_of_a_function_with_await() -> None:
    seen: list[Any] = []

    async def note(what: str) -> None:
        seen.append((what, treadle.is_grad_enabled()))
        await asyncio.sleep(0)

    @treadle.no_grad()
    async def awaits(first: int) -> int:
        await note("inside")
        try:
            await asyncio.sleep(first)
        finally:
            await note("inside")
        return first

    @treadle.no_grad()
    async def yields() -> Any:
        try:
            await note("inside")
            seen.append((await asyncio.sleep(0, (yield 1)), treadle.is_grad_enabled()))
            yield 2
        except KeyError:
            await note("inside")
            yield 3
        finally:
            await note("inside")

    async def other() -> None:
        for _ in range(8):
            await note("between")

    async def run() -> None:
        running = asyncio.ensure_future(other())
        assert await awaits(0) == 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(awaits(100), 0.01)
        parts = yields()
        assert [await anext(parts), await parts.asend("inside"), await parts.athrow(KeyError("x"))] == [1, 2, 3]
        assert [part async for part in parts] == []
        parts = yields()
        await anext(parts)
        await parts.aclose()
        await running
        assert treadle.is_grad_enabled()

    asyncio.run(run())
    assert {what: {on for at, on in seen if at == what} for what, _ in seen} == {"inside": {False}, "between": {True}}
    assert len(seen) == 8 + 4 + 5 + 1
    assert inspect.iscoroutinefunction(awaits)
    assert inspect.isasyncgenfunction(yields)


def test_recording_is_set_at_once_and_restored_after_a_block() -> None:
    treadle.set_grad_enabled(False)
    assert not treadle.is_grad_enabled()
    with treadle.set_grad_enabled(True):
        assert treadle.is_grad_enabled()
    assert not treadle.is_grad_enabled()
    inside = treadle.set_grad_enabled(True)(treadle.is_grad_enabled)
    assert not treadle.is_grad_enabled()
    assert inside()
    treadle.set_grad_enabled(True)
    switch = treadle.set_grad_enabled(False)
    with switch, switch:
        assert not treadle.is_grad_enabled()
    assert treadle.is_grad_enabled()


def test_what_is_not_needed_is_not_recorded() -> None:
    seen: list[tuple[bool, ...]] = []

    class Look(Product):
        @staticmethod
        def forward(ctx: Context, x: Tensor, y: Tensor, scale: float) -> Tensor:
            seen.append(ctx.needs_input_grad)
            return x + y

    x = random(2)
    assert Look.apply(x, x.detach(), 1.0).requires_grad
    assert not Look.apply(x.detach(), x.detach(), 1.0).requires_grad
    with treadle.no_grad():
        assert not Look.apply(x, x, 1.0).requires_grad
    assert seen == [(True, False, False), (False, False, False), (True, True, False)]


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (lambda g: (g, g), ValueError, "expected 1 gradients from Wrong.backward, got 2"),
        (lambda g: g.sum(), ValueError, r"expected a gradient of shape \(2,\) for input 0, got \(\)"),
        (lambda g: g > 0, TypeError, "expected a float gradient for input 0, got bool"),
        (lambda g: g.numpy(), TypeError, "function: expected a Tensor, got ndarray"),
        (lambda g: 1 / 0, ZeroDivisionError, "division by zero"),
    ],
    ids=["count", "shape", "dtype", "array", "own"],
)
def test_wrong_gradients_are_refused_and_errors_pass_through(answer: Any, kind: type[Exception], message: str) -> None:
    class Wrong(Function):
        @staticmethod
        def forward(ctx: Context, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Context, grad_output: Tensor) -> Any:
            return answer(grad_output)

    x = random(2)
    with pytest.raises(kind, match=message):
        Wrong.apply(x).sum().backward()
    assert x.grad is None


def test_wrong_calls_are_refused() -> None:
    class Nothing(Function):
        @staticmethod
        def forward(ctx: Context, x: Tensor) -> Any:
            return 3

    with pytest.raises(TypeError, match=r"expected a Tensor from Nothing\.forward, got int"):
        Nothing.apply(random(2))
    with pytest.raises(TypeError, match="expected a class that defines forward"):
        Function.apply(random(2))
    with pytest.raises(TypeError, match="save_for_backward: expected Tensors, got float"):
        Context(()).save_for_backward(1.0)  # type: ignore[arg-type]


def test_arguments_that_were_not_saved_do_not_stay() -> None:
    class Twice(Function):
        @staticmethod
        def forward(ctx: Context, x: Tensor, factor: float) -> Tensor:
            return x * factor

        @staticmethod
        def backward(ctx: Context, grad_output: Tensor) -> Any:
            return grad_output * 2.0, None

    before = treadle.memory_stats()["live_bytes"]
    y = x = treadle.ones(1 << 18, requires_grad=True)
    for _ in range(20):
        y = Twice.apply(y, 2.0)
    assert treadle.memory_stats()["live_bytes"] - before < 5 << 20
    y.backward(treadle.ones(1 << 18))
    assert x.grad is not None
    assert x.grad[0].item() == 2.0**20


def test_nothing_holds_itself() -> None:
    class Mark:
        pass

    contexts: list[weakref.ref[Mark]] = []

    class Marked(Exp):
        @staticmethod
        def forward(ctx: Context, x: Tensor) -> Tensor:
            ctx.mark = Mark()  # type: ignore[attr-defined]
            contexts.append(weakref.ref(ctx.mark))  # type: ignore[attr-defined]
            return Exp.forward(ctx, x)

    gc.disable()
    try:
        y = Marked.apply(random(3))
        assert contexts[0]() is not None
        del y
        treadle.zeros(1)
        assert contexts[0]() is None
        Marked.apply(random(3)).sum().backward()
        assert contexts[1]() is None
    finally:
        gc.enable()


# the check --------------------------------------------------------------------


class Off(Exp):
    """Its gradient is a thousandth too large."""

    @staticmethod
    def backward(ctx: Context, grad_output: Tensor) -> Any:
        return Exp.backward(ctx, grad_output) * 1.001


class OffTwice(Function):
    """Its gradient is right, the gradient of that is not."""

    @staticmethod
    def forward(ctx: Context, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx: Context, grad_output: Tensor) -> Any:
        return ctx.saved_tensors[0].detach().exp() * grad_output


def test_the_check_sees_what_is_wrong() -> None:
    x = random(3, 3)
    with pytest.raises(ValueError, match=r"gradcheck: expected a slope of .* in direction 0, got"):
        gradcheck(Off.apply, x)
    assert gradcheck(OffTwice.apply, x)
    with pytest.raises(ValueError, match="gradcheck: expected a slope of"):
        gradgradcheck(OffTwice.apply, x)
    with pytest.raises(ValueError, match="gradcheck: expected a slope of"):
        gradcheck(lambda x: x.detach() * x, x)


def test_the_check_needs_float64_and_something_to_check() -> None:
    with pytest.raises(TypeError, match="gradcheck: expected float64, got float32"):
        gradcheck(treadle.ops.tanh, treadle.ones(2).requires_grad_())
    with pytest.raises(ValueError, match="gradgradcheck: expected an input that requires grad, got none"):
        gradgradcheck(treadle.ops.tanh, treadle.ones(2))
    with pytest.raises(TypeError, match="gradcheck: expected Tensors, got float"):
        gradcheck(treadle.ops.tanh, [1.0])  # type: ignore[list-item]
