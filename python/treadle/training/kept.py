"""What a checkpoint inside an epoch keeps of a metric.

Invariants: what is given back equals what was there, with the same element types, and shares nothing with the checkpoint. What
there was after `reset` stays the object that it is, so whatever else refers to it, as a view of an array does, sees what it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from treadle._core import Generator, Tensor
from treadle.nn import Buffer, Module, Parameter
from treadle.nn.parameter import Member
from treadle.training.metrics import Metric
from treadle.training.reach import attributes, children

__all__ = ["Kept"]

# The one key of a dict that stands for something else, and the keys of a state: as no attribute can be called.
_NUMPY, _OBJECT, _MEMBER = "numpy", "object()", "member()"
_OWN, _CONTENTS = "state_dict()", "contents()"
_NEW = "new "  # begins the names of what there was not after `reset`

_VALUES = (bool, int, float, str, type(None))
_MEMBERS = {kind.__name__: kind for kind in (Buffer, Parameter)}
# What is not kept: functions, and generators, which the run keeps itself.
_LEFT = (FunctionType, BuiltinFunctionType, MethodType, partial, np.ufunc, type, ModuleType, Generator)
_BY_IDENTITY: Any = object.__hash__


class Kept:
    """A metric that is reset, and from then on kept and given back: by its `state_dict` and `load_state_dict`, or its attributes.

    Other objects among those are kept by their attributes where `reset` left or made them; functions are left out.
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        metric.reset()
        self._begun = dict(_walked("", metric, set()))

    def state_dict(self) -> dict[str, Any]:
        """A copy that a checkpoint can hold; TypeError where there is none."""
        name, own = type(self.metric).__name__, self._own("state_dict")
        copy = _Copy(self._begun if own is None else {})
        if own is not None:
            return {_OWN: copy.of(own(), f"{name}.{_OWN}"), _CONTENTS: copy.contents}
        copy.of(self.metric, name)
        copy.check_shared()
        return {_CONTENTS: copy.contents}

    def _own(self, name: str) -> Callable[..., Any] | None:
        both = all(callable(getattr(self.metric, part, None)) for part in ("state_dict", "load_state_dict"))
        inherited = getattr(type(self.metric), "state_dict", None) is Module.state_dict  # it knows of tensors alone
        return getattr(self.metric, name) if both and not inherited else None

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state_dict` returned.

        Raises:
            ValueError: The metric has other parts than that one had.
        """
        load = self._own("load_state_dict")
        own = load is not None and _OWN in state
        contents = state.get(_CONTENTS, {} if own else {"": state})  # checkpoints of before have no more
        objects = {} if own else dict(self._begun)
        for path, content in contents.items():
            if path.startswith(_NEW):
                objects[path] = _restored(content, None)
            elif path not in objects:
                kind = type(self.metric).__name__
                raise ValueError(f"fit: expected a {kind} as in the checkpoint, got one without its {path!r}")
        for path, content in contents.items():
            _fill(objects[path], _restored(content, objects))
        if load is not None and own:
            load(_restored(state[_OWN], objects))


def _walked(path: str, value: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """An object and those that it is made of, each under the first path that leads to it."""
    if type(value) in _VALUES or isinstance(value, np.generic) or id(value) in seen:
        return
    seen.add(id(value))
    yield path, value
    if not isinstance(value, (*_LEFT, Tensor, np.ndarray)):
        for name, part in children(value):
            yield from _walked(f"{path}.{name}" if path else str(name), part, seen)


class _Copy:
    """Copies a metric.

    Args:
        begun: What there was after `reset`, by path.
    """

    def __init__(self, begun: Mapping[str, Any]) -> None:
        self._objects = {id(value): (path, value) for path, value in begun.items()}
        self.contents: dict[str, Any] = {}
        """What each object holds, by the path that led to it after `reset`, or a number."""

    def of(self, value: Any, name: str) -> Any:
        """A copy of a value, or where what it holds is to be found; `name` is for errors."""
        if type(value) in _VALUES:
            return value
        path, _ = self._objects.get(id(value), (None, None))
        if path is None and (type(value) is tuple or isinstance(value, np.generic)):
            return self._content(value, name, False)
        if path is None:
            path = f"{_NEW}{len(self._objects)}"
            self._objects[id(value)] = path, value
        if path not in self.contents:
            self.contents[path] = None
            self.contents[path] = self._content(value, name, not path.startswith(_NEW))
        return {_OBJECT: path}

    def _content(self, value: Any, name: str, begun: bool) -> Any:
        array = type(value) is np.ndarray
        if (array or isinstance(value, np.generic)) and not value.dtype.hasobject and value.dtype.names is None:
            shape = list(value.shape) if array else None
            return {_NUMPY: [value.dtype.str, shape, Tensor(np.frombuffer(value.tobytes(), np.uint8))]}
        if isinstance(value, Tensor) and (begun or type(value) in (Tensor, *_MEMBERS.values())):
            plain = begun or type(value) is Tensor
            return value.detach() if plain else {_MEMBER: [type(value).__name__, value.requires_grad, value.detach()]}
        if type(value) is dict and all(type(key) in (str, int) for key in value) and not value.keys() & {_NUMPY, _OBJECT, _MEMBER}:
            return {key: self.of(entry, f"{name}[{key!r}]") for key, entry in value.items()}
        if type(value) in (list, tuple) or (begun and isinstance(value, tuple)):
            kind = tuple if isinstance(value, tuple) else list
            return kind(self.of(entry, f"{name}[{place}]") for place, entry in enumerate(value))
        if begun and not isinstance(value, _LEFT) and _is_open(value):
            return {part: self.of(member, f"{name}.{part}") for part, member in attributes(value).items()}
        if begun and (isinstance(value, _LEFT) or _is_value(value)):
            return None
        what = "numbers, strings, arrays of such, Tensors, lists, tuples and dicts"
        got = f"an array of {value.dtype}" if array else f"a {type(value).__name__}"
        raise TypeError(f"expected {what}, got {got} as {name}")

    def check_shared(self) -> None:
        """Refuses a view among the arrays that `update` made: apart from its array it would go on as another."""
        arrays = [(path, value) for path, value in self._objects.values() if type(value) is np.ndarray and value.size]
        arrays.sort(key=lambda held: held[1].__array_interface__["data"][0])
        for (path, one), (later, other) in pairwise(arrays):
            new, changing = _NEW in (path[:4], later[:4]), one.flags.writeable or other.flags.writeable
            if new and changing and np.may_share_memory(one, other):
                raise TypeError("expected arrays with memory of their own, got one that is a view of another")


def _restored(value: Any, objects: Mapping[str, Any] | None) -> Any:
    """A copy as it was; where `objects` are not there yet, those inside are left as they are."""
    if isinstance(value, list | tuple):
        return type(value)(_restored(entry, objects) for entry in value)
    if not isinstance(value, dict):
        return value
    match list(value.items()):
        case [(str() as key, path)] if key == _OBJECT:
            return value if objects is None else objects[path]
        case [(str() as key, [kind, requires_grad, tensor])] if key == _MEMBER:
            return _MEMBERS[kind](tensor, requires_grad)
        case [(str() as key, [dtype, shape, flat])] if key == _NUMPY:
            array = np.frombuffer(flat.numpy().tobytes(), dtype)
            return array[0] if shape is None else array.reshape(shape).copy()
    return {key: _restored(entry, objects) for key, entry in value.items()}


def _fill(value: Any, content: Any) -> None:
    """Gives an object its content."""
    if isinstance(value, Tensor | np.ndarray):
        if (value.shape, value.dtype) != (content.shape, content.dtype):
            here, there = (f"{part.dtype} of shape {part.shape}" for part in (value, content))
            raise ValueError(f"fit: expected a metric with {there} as in the checkpoint, got {here}")
        if isinstance(value, Tensor):
            value.copy_(content)
        elif value.flags.writeable:
            np.copyto(value, content)
    elif isinstance(value, list):
        value[:] = content
    elif isinstance(value, dict):
        value.clear()
        value.update(content)
    elif isinstance(content, dict):
        for name, part in content.items():
            held = attributes(value).get(name)
            if isinstance(held, Member) and type(part) is Tensor:  # as checkpoints of before have it
                held.copy_(part)
            else:
                object.__setattr__(value, name, part)


def _is_value(value: Any) -> bool:
    """Whether an object is told from others by its value, so that it cannot change."""
    try:
        hash(value)
    except TypeError:
        return False
    return type(value).__hash__ is not _BY_IDENTITY


def _is_open(value: Any) -> bool:
    """Whether attributes are all that an object is made of, as Python has it that would copy it."""
    try:
        made, arguments, _, *entries = value.__reduce_ex__(2)
    except Exception:
        return False
    return getattr(made, "__name__", "") == "__newobj__" and arguments == (type(value),) and not any(entries)
