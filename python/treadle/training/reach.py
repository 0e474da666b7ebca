"""What the parts of a run hold: the generators that they draw from, and the modules beside its model.

Invariant: each has the same name in every process that makes the run in the same way.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np

from treadle._core import Generator, Tensor, default_generator
from treadle.nn import Module

__all__ = ["Reach", "attributes", "children"]

# What holds nothing that is a run's own.
_PLAIN = (Tensor, np.ndarray, str, bytes, int, float, type(None), ModuleType)
_LIBRARIES = sys.stdlib_module_names | {"treadle", "numpy"}  # whose classes do not either
_MANY = 100  # entries of a list or dict; a longer one holds examples
_DEPTH = 8


class Reach:
    """The generators of a run by name, the default one among them, and the modules that are not the model's.

    They are looked for in attributes and classes, in lists, tuples and dicts, and in what functions close over, have as defaults,
    or name among the globals of their module and in the modules that they name there.

    Args:
        parts: Batches, a loss and the like.
        model: The model.
    """

    def __init__(self, parts: Mapping[str, Any], model: Module) -> None:
        self.generators: dict[str, Generator] = {"default": default_generator()}
        self.modules: dict[str, Module] = {}
        self._met: list[tuple[str, Any, int]] = []
        own = {id(module) for module in model.modules()}
        self._inside, everything = set(own), set(own)
        for name, part in parts.items():
            seen: set[int] = set()
            self._look(name, part, seen, _DEPTH)
            everything |= seen
        for name, module in model.named_modules():
            self._enter(f"model.{name}", module, own, _DEPTH + 1)
        everything |= own
        # Last, so that what checkpoints of before know keeps the name that it had.
        for name, value, depth in self._met:
            for part, member in _behind(value):
                self._look(f"{name}.{part}", member, everything, depth - 1)

    def _look(self, name: str, value: Any, seen: set[int], depth: int) -> None:
        if isinstance(value, Generator):
            self.generators[name.removesuffix(".generator")] = value
        elif depth and not isinstance(value, _PLAIN) and id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, Module) and id(value) not in self._inside:
                self.modules[name] = value
                self._inside |= {id(module) for module in value.modules()}
            self._enter(name, value, seen, depth)

    def _enter(self, name: str, value: Any, seen: set[int], depth: int) -> None:
        self._met.append((name, value, depth))
        for part, member in _members(value):
            self._look(f"{name}.{part}", member, seen, depth - 1)


def _members(value: Any) -> Iterator[tuple[Any, Any]]:
    """What a value holds itself, by name."""
    if isinstance(value, partial):
        yield from (("function", value.func), ("args", value.args), ("keywords", value.keywords))
    elif isinstance(value, FunctionType):
        yield from _of_function(value)
    elif isinstance(value, MethodType):
        yield from (("self", value.__self__), ("function", value.__func__))
    elif not isinstance(value, type):
        yield from children(value)


def children(value: Any) -> Iterator[tuple[Any, Any]]:
    """The entries of a list, tuple or dict that is no longer than those of parts are, or the attributes of another object."""
    if isinstance(value, dict):
        yield from value.items() if len(value) <= _MANY else ()
    elif isinstance(value, list | tuple):
        yield from enumerate(value) if len(value) <= _MANY else ()
    else:
        yield from attributes(value).items()


def attributes(value: Any) -> dict[str, Any]:
    """What an object holds in slots and in its `__dict__`, by name."""
    classes = (vars(kind) for kind in type(value).__mro__ if "__slots__" in vars(kind))
    slots = (name for parts in classes for name, part in parts.items() if isinstance(part, MemberDescriptorType))
    return {name: getattr(value, name) for name in slots if hasattr(value, name)} | getattr(value, "__dict__", {})


def _behind(value: Any) -> Iterator[tuple[Any, Any]]:
    """What stands behind a value, by name: an object's class, what a class defines, what a function names in other modules."""
    if isinstance(value, FunctionType):
        names = dict.fromkeys(_named(value.__code__))
        modules = {name: vars(found) for name in names if isinstance(found := value.__globals__.get(name), ModuleType)}
        yield from ((f"{name}.{part}", module[part]) for name, module in modules.items() for part in names if part in module)
    elif isinstance(value, staticmethod | classmethod):
        yield "function", value.__func__
    elif isinstance(value, property):
        yield "function", value.fget
    elif not isinstance(value, type):
        yield "class", type(value)
    elif value.__module__.partition(".")[0] not in _LIBRARIES:
        yield from {**vars(value), "bases": value.__bases__}.items()


def _of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # it is not bound yet
            continue
    yield from ((name, function.__globals__[name]) for name in _named(function.__code__) if name in function.__globals__)
    yield from (("defaults", function.__defaults__), ("kwdefaults", function.__kwdefaults__))
    yield from vars(function).items()  # `__wrapped__` of a decorated one among them


def _named(code: CodeType) -> list[str]:
    """The globals and attributes that a function names, and those that functions inside it do."""
    inner = (name for constant in code.co_consts if isinstance(constant, CodeType) for name in _named(constant))
    return [*code.co_names, *inner]
