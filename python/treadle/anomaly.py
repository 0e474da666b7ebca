"""`detect_anomaly`: where the first infinity or NaN arose."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from treadle._core import _enter_layer, _leave_layer, _set_watching
from treadle.nn import Module

__all__ = ["detect_anomaly"]

_plain_call = Module.__call__


class _Calls:
    """How many blocks there are in all threads: only then do modules tell their names, calls cost nothing more otherwise."""

    blocks = 0
    lock = threading.Lock()

    @classmethod
    def count(cls, change: int) -> None:
        with cls.lock:
            cls.blocks += change
            Module.__call__ = _named_call if cls.blocks else _plain_call  # type: ignore[method-assign]


class _Local(threading.local):
    """Of a thread: the blocks it is in and, inside one, the labels of modules by id; the modules are held so long."""

    blocks = 0
    labels: dict[int, str] | None = None
    held: list[Module] | None = None


_local = _Local()


class detect_anomaly:
    """Looks at every result and every gradient on this thread; the first that is not finite raises.

    The error names the op, the numbers and shape, and the layer by its path inside the outermost module that was called. A
    training step takes 2 to 12 percent longer (`python -m benches.anomaly`). Views are not looked at, since their values were.

    Args:
        mode: Whether to look; False makes the block an ordinary one.

    Raises:
        FloatingPointError: Inside the block, at the op, or at `backward()` where a gradient is the first.

    Example:
        >>> with treadle.detect_anomaly():
        ...     loss = nn.functional.cross_entropy(model(x), y)
        ...     loss.backward()

    Source: after `torch.autograd.detect_anomaly`, which looks at gradients only.
    """

    def __init__(self, mode: bool = True) -> None:
        self._mode = bool(mode)
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(_set_watching(self._mode))
        if not _local.blocks:
            _local.labels, _local.held = {}, []
        _local.blocks += 1
        _Calls.count(1)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _set_watching(self._before.pop())
        _local.blocks -= 1
        if not _local.blocks:
            _local.labels = _local.held = None
        _Calls.count(-1)


def _named_call(self: Module, *args: Any, **kwargs: Any) -> Any:
    labels = _local.labels
    if labels is None:
        return self.forward(*args, **kwargs)
    _enter_layer(labels.get(id(self)) or _learn(self, labels))
    try:
        return self.forward(*args, **kwargs)
    finally:
        _leave_layer()


def _learn(root: Module, labels: dict[int, str]) -> str:
    """Notes the labels of a module that is called for the first time, and of those inside it."""
    for name, module in root.named_modules():
        kind = type(module).__name__
        labels[id(module)] = f"{name} ({kind})" if name else kind
    if _local.held is not None:
        _local.held.append(root)
    return labels[id(root)]
