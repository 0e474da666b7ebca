"""Modules that hold modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from treadle._core import Tensor
from treadle.nn.activation import ReLU
from treadle.nn.module import Module
from treadle.nn.norm import BatchNorm1d

__all__ = ["ModuleDict", "ModuleList", "Residual", "Sequential"]


def _checked(kind: str, module: Any) -> Module:
    if not isinstance(module, Module):
        raise TypeError(f"{kind}: expected modules, got {type(module).__name__}")
    return module


class _Indexed(Module):
    """Modules by position, named "0", "1", … in state_dicts."""

    _kind = "module_list"

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self._items: list[Module] = [_checked(self._kind, m) for m in modules]

    def named_members(self) -> Iterator[tuple[str, Any]]:
        """The modules, named by their positions."""
        yield from ((str(i), m) for i, m in enumerate(self._items))

    def append(self, module: Module) -> None:
        """Adds a module at the end."""
        self._items.append(_checked(self._kind, module))

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._items)

    def __setitem__(self, index: int, module: Module) -> None:
        self._items[index] = _checked(self._kind, module)


class ModuleList(_Indexed):
    """A list of modules.

    Example:
        >>> layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
    """

    def __getitem__(self, index: int | slice) -> Any:
        return ModuleList(self._items[index]) if isinstance(index, slice) else self._items[index]


class ModuleDict(Module):
    """Modules by name.

    Example:
        >>> heads = nn.ModuleDict({"policy": nn.Linear(64, 4), "value": nn.Linear(64, 1)})
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self._items = {name: _checked("module_dict", m) for name, m in (modules or {}).items()}

    def named_members(self) -> Iterator[tuple[str, Any]]:
        """The modules by name."""
        yield from self._items.items()

    def __getitem__(self, name: str) -> Module:
        return self._items[name]

    def __setitem__(self, name: str, module: Module) -> None:
        self._items[name] = _checked("module_dict", module)

    def __contains__(self, name: str) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class Sequential(_Indexed):
    """Modules one after another. A `BatchNorm1d` followed by a `ReLU` runs as one kernel, with the same result.

    Args:
        *modules: What is applied, in order.

    Raises:
        TypeError: Something that is not a Module.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))
    """

    _kind = "sequential"

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def __getitem__(self, index: int | slice) -> Any:
        return Sequential(*self._items[index]) if isinstance(index, slice) else self._items[index]

    def forward(self, x: Tensor) -> Tensor:
        """What the last module makes of it."""
        items, i = self._items, 0
        while i < len(items):
            module = items[i]
            # Exact types only: a subclass may define another forward.
            if type(module) is BatchNorm1d and i + 1 < len(items) and type(items[i + 1]) is ReLU:
                x = module.forward(x, relu=True)
                i += 2
            else:
                x = module(x)
                i += 1
        return x


class Residual(Module):
    """y = x + fn(x).

    Source: He et al. 2016, "Deep residual learning for image recognition".
    """

    def __init__(self, fn: Module) -> None:
        super().__init__()
        self.fn = _checked("residual", fn)

    def forward(self, x: Tensor) -> Tensor:
        """(*) → (*), where fn keeps the shape."""
        y: Tensor = self.fn(x) + x
        return y
