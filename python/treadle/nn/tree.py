"""`Tree`: what a module is made of, found where it is.

One walker goes through attributes that are parameters, buffers or modules, also inside lists, tuples and dicts. Invariant:
it gives each object once, under its first name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from treadle.nn.parameter import Buffer, Parameter

if TYPE_CHECKING:
    from treadle.nn.module import Module

__all__ = ["Tree"]

K = TypeVar("K")


#: Most attributes are of these types and hold nothing.
_PLAIN = frozenset({int, float, bool, str, type(None)})


def _members(value: Any, name: str, above: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """What `value` is or holds, with dotted names, in the order of definition; what holds itself is not entered again."""
    if isinstance(value, _MEMBERS):
        yield name, value
    elif isinstance(value, list | tuple | dict) and id(value) not in above:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _members(item, f"{name}.{key}", (*above, id(value)))


class Tree:
    """The part of a `Module` that finds its parameters, buffers and modules; only `Module` derives from it."""

    def named_members(self) -> Iterator[tuple[str, Any]]:
        """The parameters, buffers and modules directly inside this one, under every name they have."""
        for name, value in vars(self).items():
            if type(value) not in _PLAIN:
                yield from _members(value, name)

    def _walk(self, kind: type[K], prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, K]]:
        """Of this module and all below, what is of one kind."""
        seen = {id(self)} if seen is None else seen
        if isinstance(self, kind):
            yield prefix, self
        for name, member in self.named_members():
            if id(member) in seen:
                continue
            seen.add(id(member))
            path = f"{prefix}.{name}" if prefix else name
            if isinstance(member, Tree):
                yield from member._walk(kind, path, seen)
            elif isinstance(member, kind):
                yield path, member

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """This module (named "") and all below, each once."""
        return cast("Iterator[tuple[str, Module]]", self._walk(Tree))

    def modules(self) -> Iterator[Module]:
        """This module and all below, each once."""
        return (m for _, m in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly inside this one, under every name they have."""
        found = ((name, m) for name, m in self.named_members() if isinstance(m, Tree))
        return cast("Iterator[tuple[str, Module]]", found)

    def children(self) -> Iterator[Module]:
        """The modules directly inside this one."""
        return (m for _, m in self.named_children())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their dotted names; a shared one appears once, under its first name."""
        return self._walk(Parameter)

    def parameters(self) -> list[Parameter]:
        """All parameters, each once."""
        return [p for _, p in self.named_parameters()]

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """All buffers with their dotted names, each once."""
        return self._walk(Buffer)

    def buffers(self) -> list[Buffer]:
        """All buffers, each once."""
        return [b for _, b in self.named_buffers()]


_MEMBERS = (Tree, Parameter, Buffer)
