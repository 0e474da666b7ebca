"""The sources of chance of a run: the default generator, and those that its modules and its other parts draw from.

Invariant: a generator has the same name in every process that makes the run in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np

from treadle._core import Generator, Tensor, default_generator
from treadle.nn import Module

__all__ = ["attributes", "of_model", "of_run"]

# What holds no generators, or none that are a run's own.
_PLAIN = (Tensor, np.ndarray, str, bytes, int, float, type(None), type, ModuleType)
_MANY = 100  # entries of a list or dict; a longer one holds examples
_DEPTH = 8


def of_run(parts: Mapping[str, Any], model: Module) -> dict[str, Generator]:
    """The generators of parts, such as batches and a loss, and of a model by name, the default one among them.

    They are looked for in attributes, in lists, tuples and dicts, and in what functions close over, have as defaults, or name
    among the globals of their module.
    """
    found: dict[str, Generator] = {}
    for name, part in parts.items():
        _look(name, part, found, set(), _DEPTH)
    return of_model(model) | found


def of_model(model: Module) -> dict[str, Generator]:
    """The default generator and those of a model's modules, by name."""
    found = {"default": default_generator()}
    modules = list(model.named_modules())
    seen = {id(module) for _, module in modules}
    for name, module in modules:
        for part, member in _members(module):
            _look(f"model.{name}.{part}", member, found, seen, _DEPTH)
    return found


def _look(name: str, value: Any, found: dict[str, Generator], seen: set[int], depth: int) -> None:
    """Adds the generators that a value holds."""
    if isinstance(value, Generator):
        found[name.removesuffix(".generator")] = value
    elif depth and not isinstance(value, _PLAIN) and id(value) not in seen:
        seen.add(id(value))
        for part, member in _members(value):
            _look(f"{name}.{part}", member, found, seen, depth - 1)


def _members(value: Any) -> Iterator[tuple[Any, Any]]:
    """What a value holds, by name."""
    if isinstance(value, dict):
        yield from value.items() if len(value) <= _MANY else ()
    elif isinstance(value, list | tuple):
        yield from enumerate(value) if len(value) <= _MANY else ()
    elif isinstance(value, MethodType):
        yield from (("self", value.__self__), ("function", value.__func__))
    elif isinstance(value, partial):
        yield from (("function", value.func), ("args", value.args), ("keywords", value.keywords))
    elif isinstance(value, FunctionType):
        yield from _of_function(value)
    else:
        yield from attributes(value).items()


def attributes(value: Any) -> dict[str, Any]:
    """What an object holds in slots and in its `__dict__`, by name."""
    classes = (vars(kind) for kind in type(value).__mro__ if "__slots__" in vars(kind))
    slots = (name for parts in classes for name, part in parts.items() if isinstance(part, MemberDescriptorType))
    return {name: getattr(value, name) for name in slots if hasattr(value, name)} | getattr(value, "__dict__", {})


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
