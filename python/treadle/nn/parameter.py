"""What an attribute of a module is: `Parameter` is learned, `Buffer` is kept beside the parameters.

Invariant: copies and pickles keep kind, value, element type, `requires_grad` and attributes that were set; they do not keep the
gradient.
"""

from __future__ import annotations

import copy
from typing import Any, Self

from treadle._core import Tensor

__all__ = ["Buffer", "Member", "Parameter"]


class Member(Tensor):
    """A tensor that a module owns."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.numpy().copy(), self.requires_grad)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        made = self.__reduce__()
        return made if len(made) > 2 else (*made, vars(self) or None)  # a class of the user's may say more

    def __copy__(self) -> Self:
        copied = type(self)(self.detach(), requires_grad=self.requires_grad)
        vars(copied).update(vars(self))
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = super().__deepcopy__(memo)
        vars(copied).update(copy.deepcopy(vars(self), memo))
        return copied


class Parameter(Member):
    """A tensor that is learned: a module's `parameters()` finds it and optimizers change it.

    Args:
        data: A tensor, NumPy array or nested list of floats. A tensor's storage is shared until one of the two changes.
        requires_grad: Whether gradients are accumulated in `grad`.
        dtype: Element type; None keeps the data's own.
        device: None or "cpu".

    Shape:
        That of `data`.

    Raises:
        TypeError: Data that is not float32 or float64 while `requires_grad` holds.

    Example:
        >>> self.weight = nn.Parameter(init.ones(dim))
    """

    def __new__(cls, data: Any, requires_grad: bool = True, dtype: Any = None, device: str | None = None) -> Self:
        return super().__new__(cls, data, dtype, requires_grad, device)


class Buffer(Member):
    """A tensor that belongs to a module's state but is not learned, such as a running mean.

    A Tensor off the tape that is assigned to the attribute becomes its next value, and a Buffer.

    Args:
        data: A tensor, NumPy array or nested list. A tensor's storage is shared until one of the two changes.
        requires_grad: Whether gradients are accumulated in `grad`.
        dtype: Element type; None keeps the data's own.
        device: None or "cpu".

    Shape:
        That of `data`.

    Example:
        >>> self.running_mean = nn.Buffer(init.zeros(dim))
    """

    def __new__(cls, data: Any, requires_grad: bool = False, dtype: Any = None, device: str | None = None) -> Self:
        return super().__new__(cls, data, dtype, requires_grad, device)
