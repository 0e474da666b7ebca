"""What a checkpoint inside an epoch keeps of a metric.

Invariant: what is given back equals what was there, with the same element types, and shares nothing with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, MutableSequence, MutableSet
from typing import Any

import numpy as np

from treadle._core import Tensor
from treadle.nn import Module
from treadle.training.metrics import Metric
from treadle.training.reach import attributes

__all__ = ["Kept"]

_NUMPY = "numpy"  # the one key of a dict that stands for an array
_OWN = "state_dict()"  # as no attribute can be called


class Kept:
    """A metric that is reset, and from then on kept and given back: by its `state_dict` and `load_state_dict`, or its attributes.

    What no checkpoint can hold, such as a function, is left out where `reset` left it alone.
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        before = attributes(metric)
        metric.reset()
        after = attributes(metric)
        self._settled = {name for name, value in after.items() if name in before and before[name] is value}

    def state_dict(self) -> dict[str, Any]:
        """A copy that a checkpoint can hold; TypeError where there is none."""
        own = self._own("state_dict")
        return {_OWN: _copied(own(), _OWN)} if own is not None else dict(self._attributes())

    def _own(self, name: str) -> Callable[..., Any] | None:
        both = all(callable(getattr(self.metric, part, None)) for part in ("state_dict", "load_state_dict"))
        inherited = getattr(type(self.metric), "state_dict", None) is Module.state_dict  # it knows of tensors alone
        return getattr(self.metric, name) if both and not inherited else None

    def _attributes(self) -> Iterator[tuple[str, Any]]:
        for name, value in attributes(self.metric).items():
            try:
                yield name, _copied(value, f"{type(self.metric).__name__}.{name}")
            except TypeError:
                if name not in self._settled or isinstance(value, MutableMapping | MutableSequence | MutableSet):
                    raise

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state_dict` returned."""
        load = self._own("load_state_dict")
        if load is not None and _OWN in state:
            load(_restored(state[_OWN]))
            return
        for name, value in state.items():
            object.__setattr__(self.metric, name, _restored(value))


def _copied(value: Any, name: str) -> Any:
    array = type(value) is np.ndarray
    if (array or isinstance(value, np.generic)) and not value.dtype.hasobject and value.dtype.names is None:
        shape = list(value.shape) if array else None
        return {_NUMPY: [value.dtype.str, shape, Tensor(np.frombuffer(value.tobytes(), np.uint8))]}
    if isinstance(value, Tensor):
        return value.detach()
    if type(value) is dict and all(type(key) in (str, int) for key in value):
        return {key: _copied(entry, f"{name}[{key!r}]") for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_copied(entry, f"{name}[{place}]") for place, entry in enumerate(value))
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"expected numbers, strings, arrays, Tensors, lists, tuples and dicts, got a {type(value).__name__} as {name}")


def _restored(value: Any) -> Any:
    if isinstance(value, dict) and list(value) == [_NUMPY]:
        dtype, shape, flat = value[_NUMPY]
        array = np.frombuffer(flat.numpy().tobytes(), dtype)
        return array[0] if shape is None else array.reshape(shape).copy()
    if isinstance(value, dict):
        return {key: _restored(entry) for key, entry in value.items()}
    return type(value)(map(_restored, value)) if isinstance(value, list | tuple) else value
