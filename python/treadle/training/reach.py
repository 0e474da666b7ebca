"""What the parts of a run hold: the generators that they draw from, and the modules that they are made of.

Invariant: each has one name, and the same in every process that makes the run in the same way.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np

from treadle._core import Generator, Tensor, default_generator
from treadle.nn import Module

__all__ = ["Reach", "attributes"]

# What holds nothing; subclasses may have attributes.
_PLAIN = frozenset({Tensor, np.ndarray, str, bytes, int, float, bool, type(None), ModuleType})
_LIBRARIES = sys.stdlib_module_names | {"treadle", "numpy"}  # whose classes and globals hold nothing that is a run's own
_MANY = 100  # entries of a list or dict; a longer one holds examples
_DEPTH = 8  # objects inside each other, counted anew in every module

# Where objects of the language have what they are made of.
_INSIDE: dict[Any, tuple[str, ...]] = {
    partial: ("func", "args", "keywords"),
    FunctionType: ("__defaults__", "__kwdefaults__"),
    MethodType: ("__self__", "__func__"),
    staticmethod | classmethod: ("__func__",),
    property: ("fget",),
    type: ("__bases__",),
}


class Reach:
    """The generators of a run by name, the default one among them, and its modules that are no part of others, the model first.

    They are looked for in attributes and classes, in lists, tuples and dicts, and in what functions close over, have as defaults,
    or name among the globals of their module and in the modules that they name there. What is near is found, and named, first.

    Args:
        model: The model.
        parts: Batches, a loss and the like, by name.
    """

    def __init__(self, model: Module, parts: Mapping[str, Any]) -> None:
        self.generators: dict[str, Generator] = {"default": default_generator()}
        self.modules: dict[str, Module] = {}
        seen, inside = {id(default_generator())}, set[int]()
        waiting = deque((name, part, 0) for name, part in ({"model": model} | dict(parts)).items())
        while waiting:
            name, value, depth = waiting.popleft()
            if type(value) in _PLAIN or id(value) in seen:
                continue
            seen.add(id(value))
            if isinstance(value, Generator):
                self.generators[_free(name, self.generators)] = value
                continue
            below = 0 if isinstance(value, Module) else depth
            if isinstance(value, Module) and id(value) not in inside:
                self.modules[_free(name, self.modules)] = value
                inside |= {id(module) for module in value.modules()}
            if below < _DEPTH:
                waiting.extend((f"{name}.{part}", member, below + 1) for part, member in _members(value))


def _free(name: str, taken: Mapping[str, Any]) -> str:
    while name in taken:  # as the keys 1 and "1" would have it
        name += "'"
    return name


def _members(value: Any) -> Iterator[tuple[Any, Any]]:
    """What a value holds, by name."""
    if isinstance(value, type):
        yield from vars(value).items() if not _is_library(value.__module__) else ()
    else:
        yield from _entries(value)
        yield from attributes(value).items()
    if isinstance(value, FunctionType):
        yield from _of_function(value)
    for kind, names in _INSIDE.items():
        if isinstance(value, kind):
            yield from ((name, getattr(value, name)) for name in names)
    yield "class", type(value)


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:
    """The entries of a list, tuple or dict that is no longer than those of parts are; keys may have no name that stays."""
    if isinstance(value, dict) and len(value) <= _MANY:
        yield from ((key if type(key) in (str, int) else place, entry) for place, (key, entry) in enumerate(value.items()))
    elif isinstance(value, list | tuple) and len(value) <= _MANY:
        yield from enumerate(value)


def attributes(value: Any) -> dict[str, Any]:
    """What an object holds in slots and in its `__dict__`, by name."""
    classes = (vars(kind) for kind in type(value).__mro__ if "__slots__" in vars(kind))
    slots = (name for parts in classes for name, part in parts.items() if isinstance(part, MemberDescriptorType))
    return {name: getattr(value, name) for name in slots if hasattr(value, name)} | getattr(value, "__dict__", {})


def _of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function closes over, names among its globals, and names in the modules that are among those."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # it is not bound yet
            continue
    known = function.__globals__
    if _is_library(known.get("__name__")):
        return
    names = dict.fromkeys(_named(function.__code__))
    yield from ((name, known[name]) for name in names if name in known)
    modules = {name: vars(known[name]) for name in names if isinstance(known.get(name), ModuleType)}
    yield from ((f"{name}.{part}", module[part]) for name, module in modules.items() for part in names if part in module)


def _named(code: CodeType) -> list[str]:
    """The globals and attributes that a function names, and those that functions inside it do."""
    inner = (name for constant in code.co_consts if isinstance(constant, CodeType) for name in _named(constant))
    return [*code.co_names, *inner]


def _is_library(module: Any) -> bool:
    return str(module).partition(".")[0] in _LIBRARIES
