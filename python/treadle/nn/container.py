"""Modules that hold modules."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from treadle._core import Tensor
from treadle.nn import calls
from treadle.nn.activation import ReLU
from treadle.nn.linear import Linear
from treadle.nn.module import Module
from treadle.nn.norm import BatchNorm1d
from treadle.nn.spatial_norm import BatchNorm2d

__all__ = ["ModuleDict", "ModuleList", "Residual", "Sequential"]


class _Container(Module):
    """Modules by name; in state_dicts they have these names."""

    def __init__(self, modules: Iterable[tuple[str, Module]]) -> None:
        super().__init__()
        self._items = {name: self._checked(module) for name, module in modules}

    def named_members(self) -> Iterator[tuple[str, Any]]:
        """The modules under their own names, and whatever else is directly inside this one."""
        for name, member in super().named_members():
            yield name.removeprefix("_items."), member

    def _checked(self, module: Any) -> Module:
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}: expected modules, got {type(module).__name__}")
        return module

    def __len__(self) -> int:
        return len(self._items)


class _Indexed(_Container):
    """Modules by position."""

    def _name(self, index: int) -> str:
        return list(self._items)[index]

    def append(self, module: Module) -> None:
        """Adds a module at the end, named by the first number that is free from its position on."""
        number = len(self)
        while str(number) in self._items:
            number += 1
        self._items[str(number)] = self._checked(module)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._items.values())

    def __setitem__(self, index: int, module: Module) -> None:
        self._items[self._name(index)] = self._checked(module)


class ModuleList(_Indexed):
    """A list of modules, named "0", "1", … in state_dicts.

    Args:
        modules: What it holds at first.

    Raises:
        TypeError: Something that is not a Module.
        IndexError: No module at an index.

    Example:
        >>> layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        if not isinstance(modules, Iterable):
            raise TypeError(f"ModuleList: expected a list of modules, got {type(modules).__name__}")
        super().__init__((str(i), m) for i, m in enumerate(modules))

    def __getitem__(self, index: int | slice) -> Any:
        return ModuleList(list(self)[index]) if isinstance(index, slice) else self._items[self._name(index)]


class ModuleDict(_Container):
    """Modules by name.

    Args:
        modules: What it holds at first.

    Raises:
        TypeError: Something that is not a Module.
        KeyError: No module of a name.

    Example:
        >>> heads = nn.ModuleDict({"policy": nn.Linear(64, 4), "value": nn.Linear(64, 1)})
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        if not isinstance(modules, Mapping | None):
            raise TypeError(f"ModuleDict: expected a dict of modules by name, got {type(modules).__name__}")
        super().__init__((modules or {}).items())

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __setitem__(self, name: str, module: Module) -> None:
        self._items[name] = self._checked(module)

    def __delitem__(self, name: str) -> None:
        del self._items[name]

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._items.keys()

    def values(self) -> ValuesView[Module]:
        """The modules."""
        return self._items.values()

    def items(self) -> ItemsView[str, Module]:
        """Names and modules."""
        return self._items.items()


_CALL = Module.__call__


class Sequential(_Indexed):
    """Modules one after another. A `Linear`, `BatchNorm1d` or `BatchNorm2d` and a `ReLU` after it are one operation, with the same
    result.

    Args:
        *modules: What is applied, in order; or one dict of modules by name. Without names they are "0", "1", …

    Shape:
        What the first takes → what the last gives. A slice is a Sequential of the same modules under the same names.

    Raises:
        TypeError: Something that is not a Module.
        IndexError: No module at an index.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))
        >>> len(model[:3])
        3
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        named = modules[0] if len(modules) == 1 else None
        items: Iterable[Any] = named.items() if isinstance(named, Mapping) else ((str(i), m) for i, m in enumerate(modules))
        super().__init__(items)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Sequential(dict(list(self._items.items())[index]))
        return self._items[self._name(index)]

    def forward(self, x: Tensor) -> Tensor:
        """What the last module makes of it."""
        held: Any = None  # a module that waits for the next one: together with a ReLU it is one operation
        named = calls.named
        for module in tuple(self._items.values()):
            # Exact types only, as a subclass may define another forward, and so may an instance.
            kind = type(module)
            if held is not None:
                # Not while anomalies are looked for: a ReLU makes 0 of minus infinity.
                if kind is ReLU and named is None and "forward" not in module.__dict__ and "forward" not in held.__dict__:
                    x = held.forward_relu(x) if type(held) is Linear else held.forward(x, None, True)
                    held = None
                    continue
                x, held = held.forward(x) if named is None else held(x), None
            if kind is Linear or kind is BatchNorm1d or kind is BatchNorm2d:
                held = module
            elif named is None and kind.__call__ is _CALL:
                x = module.forward(x)  # what a call would do, without one
            else:
                x = module(x)
        return x if held is None else held(x)


class Residual(Module):
    """y = x + fn(x).

    Args:
        fn: A module that keeps the shape.

    Shape:
        x (*), unchanged.

    Raises:
        TypeError: A fn that is not a Module.

    Example:
        >>> block = nn.Residual(nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64)))

    Source: He et al. 2016, "Deep residual learning for image recognition".
    """

    def __init__(self, fn: Module) -> None:
        super().__init__()
        if not isinstance(fn, Module):
            raise TypeError(f"residual: expected a module, got {type(fn).__name__}")
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*)."""
        y: Tensor = self.fn(x) + x
        return y
