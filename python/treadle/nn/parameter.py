"""What an attribute of a module is: `Parameter` is learned, `Buffer` is kept beside the parameters."""

from __future__ import annotations

from typing import Any

from treadle._core import Tensor

__all__ = ["Buffer", "Parameter"]


class _Member(Tensor):
    """A tensor that a module owns. Copying and pickling keep its kind, value and `requires_grad`, not its gradient."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.numpy().copy(), None, self.requires_grad)

    def __copy__(self) -> _Member:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _Member:
        twin = type(self)(self.detach(), None, self.requires_grad)
        if self.grad is not None:
            twin.grad = self.grad
        memo[id(self)] = twin
        return twin

    def __repr__(self) -> str:
        return f"{type(self).__name__} containing:\n{super().__repr__()}"


class Parameter(_Member):
    """A tensor that is learned: a module's `parameters()` finds it and optimizers change it.

    Args:
        data: A tensor, NumPy array or nested list of floats. Its storage is shared until one of the two changes.
        dtype: Element type; None keeps the data's own.
        requires_grad: Whether gradients are accumulated in `grad`.

    Raises:
        TypeError: Data that is not float32 or float64 while `requires_grad` holds.

    Example:
        >>> self.weight = nn.Parameter(init.ones(dim))
    """

    def __new__(cls, data: Any, dtype: Any = None, requires_grad: bool = True, device: str | None = None) -> Parameter:
        return super().__new__(cls, data, dtype, requires_grad, device)


class Buffer(_Member):
    """A tensor that belongs to a module's state but is not learned, such as a running mean.

    Args:
        data: A tensor, NumPy array or nested list.
        dtype: Element type; None keeps the data's own.
    """

    def __new__(cls, data: Any, dtype: Any = None, requires_grad: bool = False, device: str | None = None) -> Buffer:
        return super().__new__(cls, data, dtype, requires_grad, device)
