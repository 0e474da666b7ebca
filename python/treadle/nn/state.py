"""What a module's state_dict holds, and how one is loaded: everything is checked before anything changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from treadle._core import Tensor

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
    """Parameters and buffers by name; a shared one under each of its names, as files have them."""
    found: dict[str, Tensor] = {}
    for prefix, owner in _occurrences(module, "", ()):
        for name, member in owner.named_members():
            if isinstance(member, Tensor):
                found[f"{prefix}.{name}" if prefix else name] = member
    return found


def load(module: Module, values: Mapping[str, Any], strict: bool) -> tuple[list[str], list[str]]:
    """Copies values in; see `Module.load_state_dict`."""
    own = members(module)
    missing = sorted(name for name in own.keys() - values.keys() if name.rpartition(".")[2] != _OPTIONAL)
    unexpected = sorted(values.keys() - own.keys())
    differences = [f"missing {name}" for name in missing] + [f"unexpected {name}" for name in unexpected]
    differences = differences if strict else []
    fresh = {name: v if isinstance(v, Tensor) else Tensor(v) for name, v in values.items() if name in own}
    for name in sorted(fresh):
        if fresh[name].shape != own[name].shape:
            differences.append(f"{name} of shape {fresh[name].shape} instead of {own[name].shape}")
    if differences:
        kind = type(module).__name__
        raise ValueError(f"load_state_dict: expected the names and shapes of {kind}, got {'; '.join(differences)}")
    for name, value in fresh.items():
        own[name].copy_(value)
    return missing, unexpected
