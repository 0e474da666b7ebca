"""What a module's state_dict holds, how one is loaded, what may replace a member, and how a module's element type changes.

Invariant: everything is checked before anything changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from treadle._core import DType, Tensor
from treadle.nn.parameter import Buffer, Member, Parameter
from treadle.nn.tree import Tree

if TYPE_CHECKING:
    from treadle.nn.module import Module

# Files of other libraries may lack it; it only matters where momentum is None.
_OPTIONAL = "num_batches_tracked"


def _occurrences(module: Module, prefix: str, above: tuple[int, ...]) -> Iterator[tuple[str, Module]]:
    """Every place a module has below `module`; one that holds itself is not entered again."""
    if id(module) in above:
        return
    yield prefix, module
    for name, child in module.named_children():
        yield from _occurrences(child, f"{prefix}.{name}" if prefix else name, (*above, id(module)))


def members(module: Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; a shared one under each of its names, as files have them.

    Raises:
        ValueError: Two of one name, as under the keys 1 and "1" of a dict.
    """
    found: dict[str, Tensor] = {}
    for prefix, owner in _occurrences(module, "", ()):
        for name, member in owner.named_members():
            if isinstance(member, Tensor):
                full = f"{prefix}.{name}" if prefix else name
                if found.setdefault(full, member) is not member:
                    raise ValueError(f"state_dict: expected one parameter or buffer of each name, got two named {full!r}")
    return found


def load(module: Module, values: Mapping[str, Any], strict: bool) -> tuple[list[str], list[str]]:
    """Copies values in; see `Module.load_state_dict`."""
    if not isinstance(values, Mapping):
        raise TypeError(f"load_state_dict: expected a dict of tensors by name, got {type(values).__name__}")
    own = members(module)
    missing = sorted(name for name in own.keys() - values.keys() if name.rpartition(".")[2] != _OPTIONAL)
    unexpected = sorted(values.keys() - own.keys())
    differences = [f"missing {name}" for name in missing] + [f"unexpected {name}" for name in unexpected]
    differences = differences if strict else []
    fresh = {name: _tensor(name, value) for name, value in values.items() if name in own}
    for name in sorted(fresh):
        if fresh[name].shape != own[name].shape:
            differences.append(f"{name} of shape {fresh[name].shape} instead of {own[name].shape}")
    if differences:
        kind = type(module).__name__
        raise ValueError(f"load_state_dict: expected the names and shapes of {kind}, got {'; '.join(differences)}")
    for name, value in fresh.items():
        own[name].copy_(value)
    return missing, unexpected


def _tensor(name: str, value: Any) -> Tensor:
    try:
        return value if isinstance(value, Tensor) else Tensor(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"load_state_dict: {name}: {error}") from error


class Snapshot:
    """The parameters and buffers in and below modules, to be put back: the objects that attributes hold, and their values."""

    def __init__(self, *modules: Module) -> None:
        self._attributes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._values: list[tuple[Tensor, Tensor]] = []
        found: list[Any] = list(modules)
        seen = set(map(id, found))
        for module in found:
            self._attributes.append((vars(module), vars(module).copy()))
            for _, member in module.named_members():
                if id(member) in seen:
                    continue
                seen.add(id(member))
                if isinstance(member, Tree):
                    found.append(member)
                else:
                    self._values.append((member, member.detach()))

    def restore(self) -> None:
        """Puts them back; a parameter or buffer that is new is taken away."""
        for now, before in self._attributes:
            for name, value in list(now.items()):
                if value is not before.get(name) and (isinstance(value, Member) or isinstance(before.get(name), Member)):
                    if name in before:
                        now[name] = before[name]
                    else:
                        del now[name]
        for member, value in self._values:
            member.copy_(value)


def successor(name: str, held: Parameter | Buffer, value: Any) -> Any:
    """What an attribute that is a parameter or buffer becomes when `value` is assigned: a buffer keeps its kind.

    Raises:
        TypeError: A plain value over a parameter, or no Tensor over a buffer: it would be neither learned nor saved.
        RuntimeError: A Tensor with gradients over a buffer, which is off the tape.
    """
    if value is None or isinstance(value, Member | Tree):
        return value
    got = type(value).__name__
    if isinstance(held, Parameter):
        raise TypeError(
            f"module: expected an nn.Parameter or None for the parameter {name!r}, got {got}; "
            f"write {name}.copy_(…) under no_grad() to change its value"
        )
    if not isinstance(value, Tensor):
        raise TypeError(f"module: expected a Tensor or None for the buffer {name!r}, got {got}; write {name}.copy_(…) to cast it")
    if value.requires_grad:
        raise RuntimeError(f"module: expected a Tensor off the tape for the buffer {name!r}, got one with gradients; detach() it")
    return type(held)(value, requires_grad=held.requires_grad)


def cast(value: Any, dtype: DType, done: dict[int, Any]) -> Any:
    """`value` with its float parameters and buffers as `dtype`; lists and dicts are changed in place.

    `done` maps what was met to what became of it, so that shared parameters stay shared.
    """
    if isinstance(value, Parameter | Buffer) and value.dtype.is_floating_point and value.dtype != dtype:
        if id(value) not in done:
            made = done[id(value)] = type(value)(value.detach(), value.requires_grad, dtype)
            vars(made).update(vars(value))
        return done[id(value)]
    if isinstance(value, list | dict):
        if id(value) in done:  # it holds itself, or others hold it, too
            return value
        done[id(value)] = value
    if isinstance(value, list):
        value[:] = [cast(item, dtype, done) for item in value]
    elif isinstance(value, dict):
        value.update({key: cast(item, dtype, done) for key, item in value.items()})
    elif isinstance(value, tuple):
        items = [cast(item, dtype, done) for item in value]
        if any(new is not old for new, old in zip(items, value, strict=True)):
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
