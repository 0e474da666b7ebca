"""What a checkpoint inside an epoch keeps of metrics.

Invariants: what is put back equals what was there, with the same types, and shares nothing with the checkpoint. What is in its
place since the run began stays the object that it is, so that whatever else refers to it sees what it holds; all else is made anew.
What neither can be promised of is a TypeError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain, repeat
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from treadle._core import Tensor
from treadle.nn import Buffer, Module
from treadle.training.metrics import Metric
from treadle.training.reach import attributes

__all__ = ["Kept", "put"]

_VALUES = (bool, int, float, str, type(None))
_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, partial, np.ufunc, type, ModuleType)
_BY_IDENTITY: Any = object.__hash__
_NOTHING: Any = object()


class Kept:
    """Copies metrics: each value is itself, or its kind, whether it stays the object that it is, and what it holds.

    Args:
        elsewhere: Gives the ids of what is left as it is, since the run has or keeps it anyway.
        first: What there was in each place as the run began; None: the first copy tells.
    """

    def __init__(self, elsewhere: Callable[[], set[int]], first: dict[str, Any] | None = None) -> None:
        self._elsewhere, self._first = elsewhere, first
        self._left, self._met, self._owners = set[int](), dict[str, Any](), dict[int, bool]()

    def copy(self, metrics: Mapping[str, Metric]) -> dict[str, Any]:
        """What a checkpoint can hold of them.

        Raises:
            TypeError: They hold something that could not be put back.
        """
        self._left = self._elsewhere()
        try:
            copied = {name: self._of_object(metric, f"metrics[{name!r}]", True) for name, metric in metrics.items()}
        except RecursionError:
            raise TypeError("expected metrics of few objects inside each other, got too many to follow") from None
        finally:
            self._first = self._met if self._first is None else self._first
            self._met, self._owners = {}, {}
        return copied

    def _of(self, value: Any, place: str) -> Any:
        """A copy of a value; errors call it by its place."""
        if type(value) in _VALUES:
            return value
        self._met[place] = value
        there = value if self._first is None else self._first.get(place)
        same, is_array = there is value, isinstance(value, np.ndarray)
        fixed = same and (isinstance(value, _FUNCTIONS) or _is_value(value) or (is_array and not value.flags.writeable))
        known = id(value) in self._left and (same or isinstance(value, Buffer))  # a buffer may be assigned anew
        if fixed or known or self._is_again(value, place, same):
            return "left", True, type(value).__qualname__
        content = self._content(value, place, same)
        if content is not None:
            return content[0], same, content[1]
        if type(there) is type(value) and (_is_open(value) or _has_state(value)):
            return self._of_object(value, place, same)
        what = "numbers, strings, arrays of such, Tensors, lists, tuples and dicts"
        got = f"an array of {value.dtype}" if is_array else f"a {type(value).__name__}"
        raise TypeError(f"expected {what}, got {got} as {place}")

    def _of_object(self, value: Any, place: str, same: bool) -> Any:
        if _has_state(value):
            kind, held = "state", Kept(set, {})._of(value.state_dict(), f"{place}.state_dict()")
        else:
            kind, held = "object", {name: self._of(part, f"{place}.{name}") for name, part in attributes(value).items()}
        return kind, same, [type(value).__qualname__, held]

    def _content(self, value: Any, place: str, same: bool) -> tuple[str, Any] | None:
        """The kind of a value that is no object of a class, and what it holds."""
        kind = type(value)
        if kind is Tensor or (same and isinstance(value, Tensor)):
            return "tensor", value.detach()
        if (kind is np.ndarray or isinstance(value, np.generic)) and not (value.dtype.hasobject or value.dtype.names):
            flat = Tensor(np.frombuffer(value.tobytes(), np.uint8))
            return "array" if kind is np.ndarray else "number", [value.dtype.str, list(value.shape), flat]
        if kind in (list, tuple):
            return kind.__name__, [self._of(entry, f"{place}[{index}]") for index, entry in enumerate(value)]
        if kind is dict and all(type(key) in (str, int) for key in value):
            return "dict", {key: self._of(entry, f"{place}[{key!r}]") for key, entry in value.items()}
        return None

    def _is_again(self, value: Any, place: str, same: bool) -> bool:
        """Whether an object was met before; refuses one in two places, or a view of another, that would be made anew."""
        if isinstance(value, (tuple, np.generic)):
            return False
        owner = value
        while isinstance(owner, np.ndarray) and owner.base is not None:
            owner = owner.base
        again = id(owner) in self._owners
        both = self._owners.setdefault(id(owner), same) and same
        if again and not both:
            got = f"a {type(value).__name__} that is in two, or a view of another"
            raise TypeError(f"expected each object in one place, got {got}, as {place}")
        return again and not isinstance(value, np.ndarray)  # of views of an array each shows something else


def put(held: Any, copied: Any) -> Any:
    """What a copy stands for, where there is `held` now: a metric that was reset, or a part of one.

    Raises:
        ValueError: It is made of other things than the one that was copied.
    """
    if not isinstance(copied, tuple):
        return copied
    kind, same, content = copied
    if kind not in ("left", "state", "object"):
        made = _made(held, kind, content)
        return _filled(held, made) if same else made
    name, parts = (content, {}) if kind == "left" else content
    if type(held).__qualname__ != name:
        got = "nothing" if held is _NOTHING else f"a {type(held).__qualname__}"
        raise ValueError(f"fit: expected metrics with a {name} as in the checkpoint, got {got} in its place")
    if kind == "left":
        return held
    if kind == "state":
        held.load_state_dict(put(_NOTHING, parts))
        return held
    target, before = held if same else object.__new__(type(held)), attributes(held)
    for part, value in parts.items():
        object.__setattr__(target, part, put(before.get(part, _NOTHING), value))
    for part in attributes(target).keys() - parts.keys():
        object.__delattr__(target, part)
    return target


def _made(held: Any, kind: str, content: Any) -> Any:
    if kind in ("array", "number"):
        dtype, shape, flat = content
        array: Any = np.ndarray(shape, dtype, flat.numpy().tobytes()).copy()
        return array if kind == "array" else array[()]
    if kind == "dict":
        before = held if isinstance(held, dict) else {}
        return {key: put(before.get(key, _NOTHING), entry) for key, entry in content.items()}
    if kind == "tensor":
        return content
    entries = chain(held if isinstance(held, list | tuple) else (), repeat(_NOTHING))
    made = [put(*pair) for pair in zip(entries, content, strict=False)]
    return tuple(made) if kind == "tuple" else made


def _filled(held: Any, made: Any) -> Any:
    """What is held, with what was made, where that fits."""
    if isinstance(held, list) and isinstance(made, list):
        held[:] = made
    elif isinstance(held, dict) and isinstance(made, dict):
        held.clear()
        held.update(made)
    elif isinstance(held, type(made)) and (held.shape, held.dtype) == (made.shape, made.dtype):
        copy = held.copy_ if isinstance(held, Tensor) else partial(np.copyto, held)
        copy(made)
    else:
        return made
    return held


def _has_state(value: Any) -> bool:
    """Whether an object says itself what is to be kept; what modules inherit knows of tensors alone."""
    both = all(callable(getattr(value, name, None)) for name in ("state_dict", "load_state_dict"))
    return both and getattr(type(value), "state_dict", None) is not Module.state_dict


def _is_value(value: Any) -> bool:
    """Whether an object is told from others by its value, so that it cannot change, but for what attributes would show."""
    try:
        hash(value)
    except Exception:  # a memoryview raises ValueError
        return False
    return type(value).__hash__ is not _BY_IDENTITY and not isinstance(value, Tensor) and not _is_open(value)


def _is_open(value: Any) -> bool:
    """Whether attributes are all that an object is made of: Python would copy it by them, and its class says nothing else."""
    if any(getattr(type(value), name) is not getattr(object, name) for name in ("__reduce_ex__", "__reduce__", "__getstate__")):
        return False
    try:
        _, arguments, _, *entries = value.__reduce_ex__(2)
    except Exception:
        return False
    return arguments == (type(value),) and not any(entries)
