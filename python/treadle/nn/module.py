"""`Module`: the base class of layers and models.

A module is an ordinary object: `Parameter`, `Buffer` and `Module` attributes are found where they are, also inside lists,
tuples and dicts. One walker finds them, so nothing has to be registered and plain assignment means what Python says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from treadle._core import Tensor
from treadle.nn import state
from treadle.nn.parameter import Buffer, Parameter

__all__ = ["Module"]

Member = Any  # Parameter, Buffer or Module


def _members(value: Any, name: str) -> Iterator[tuple[str, Member]]:
    """What `value` is or holds, with dotted names, in the order of definition."""
    if isinstance(value, Module | Parameter | Buffer):
        yield name, value
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _members(item, f"{name}.{i}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _members(item, f"{name}.{key}")


class Module:
    """Base class of all layers and models.

    Subclasses assign parameters and submodules as attributes and define `forward`.

    Example:
        >>> class Model(nn.Module):
        ...     def __init__(self):
        ...         self.linear = nn.Linear(8, 2)
        ...
        ...     def forward(self, x):
        ...         return self.linear(x).relu()
    """

    training: bool = True

    def __init__(self) -> None:
        self.training = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the output; defined by subclasses."""
        raise TypeError(f"module: expected {type(self).__name__} to define forward, got a class without it")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def named_members(self) -> Iterator[tuple[str, Member]]:
        """The parameters, buffers and modules directly inside this one."""
        for name, value in vars(self).items():
            yield from _members(value, name)

    def _walk(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Member]]:
        """This module and everything below, each object once."""
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, member in self.named_members():
            path = f"{prefix}.{name}" if prefix else name
            if isinstance(member, Module):
                yield from member._walk(path, seen)
            elif id(member) not in seen:
                seen.add(id(member))
                yield path, member

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """This module (named "") and all below, each once."""
        return ((name, m) for name, m in self._walk("", set()) if isinstance(m, Module))

    def modules(self) -> Iterator[Module]:
        """This module and all below, each once."""
        return (m for _, m in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly inside this one."""
        return ((name, m) for name, m in self.named_members() if isinstance(m, Module))

    def children(self) -> Iterator[Module]:
        """The modules directly inside this one."""
        return (m for _, m in self.named_children())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their dotted names; a shared one appears once, under its first name."""
        return ((name, p) for name, p in self._walk("", set()) if isinstance(p, Parameter))

    def parameters(self) -> list[Parameter]:
        """All parameters, each once."""
        return [p for _, p in self.named_parameters()]

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """All buffers with their dotted names, each once."""
        return ((name, b) for name, b in self._walk("", set()) if isinstance(b, Buffer))

    def buffers(self) -> list[Buffer]:
        """All buffers, each once."""
        return [b for _, b in self.named_buffers()]

    def state_dict(self) -> dict[str, Tensor]:
        """A snapshot of all parameters and buffers: later training does not change it."""
        return {name: tensor.detach() for name, tensor in state.members(self).items()}

    def load_state_dict(self, values: Mapping[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """Copies values into the parameters and buffers, after checking all of them.

        Args:
            values: Tensors or arrays by name, as `state_dict()` gives them.
            strict: Whether names that are missing or not expected are an error.

        Returns:
            The missing and the unexpected names, sorted.

        Raises:
            ValueError: Names (if strict) or shapes that do not fit; all differences are listed and nothing was changed.

        Example:
            >>> model.load_state_dict(treadle.load("model.safetensors"))
        """
        return state.load(self, values, strict)

    def train(self, mode: bool = True) -> Self:
        """Sets training mode here and below, and returns the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Sets evaluation mode here and below, and returns the module."""
        return self.train(False)

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Calls `function` on every module, children first, and returns the module."""
        for module in reversed(list(self.modules())):
            function(module)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freezes (False) or unfreezes all parameters, and returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Clears the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    reset_grad = zero_grad

    def to(self, dtype: Any) -> Self:
        """Casts float parameters and buffers to float32 or float64 in place, and returns the module."""
        for member in (*self.parameters(), *self.buffers()):
            if member.dtype.is_floating_point:
                member.data = member.detach().astype(dtype)
        return self

    def extra_repr(self) -> str:
        """What `repr` shows between the parentheses of a module without children."""
        return ""

    def __repr__(self) -> str:
        lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        inside = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({inside})"
        return "\n".join([f"{type(self).__name__}({inside}", *lines, ")"])
