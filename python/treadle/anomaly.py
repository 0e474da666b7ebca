"""`detect_anomaly`: where the first infinity or NaN arose."""

from __future__ import annotations

import os
import threading
from types import TracebackType

from treadle._core import _call_layer, _set_label, _set_watching
from treadle.nn import Module, calls

__all__ = ["detect_anomaly"]

# A handler of a signal may look for anomalies in the middle of what holds it.
_lock = threading.RLock()
#: The threads that are inside blocks, once for each block: only while there are any do modules tell their names.
_inside: list[int] = []


def _enter() -> None:
    with _lock:
        _inside.append(threading.get_ident())
        calls.named = _call_layer


def _leave() -> None:
    with _lock:
        me = threading.get_ident()
        if _inside:
            _inside.remove(me if me in _inside else _inside[0])  # a generator may be closed by another thread
        calls.named = _call_layer if _inside else None


def _renew() -> None:
    """In a forked child: a lock that nobody holds, and the blocks of the thread that is there."""
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()
    _inside[:] = [thread for thread in _inside if thread == threading.get_ident()]
    calls.named = _call_layer if _inside else None


os.register_at_fork(after_in_child=_renew)


class detect_anomaly:
    """Looks at every result and every gradient on this thread; the first that is not finite raises.

    The error names the op, the numbers and shape, and the layer by its path inside the outermost module that was called. The
    smallest training steps take a seventh longer, larger ones 2 to 4 % (`python -m benches.anomaly`). Views are not looked at,
    since their values were.

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
        self._before: dict[int, list[bool]] = {}  # of each thread that is inside, as threads may share this

    def __enter__(self) -> None:
        before = self._before.setdefault(threading.get_ident(), [])
        _enter()
        before.append(_set_watching(self._mode))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        before = self._before.get(threading.get_ident())
        if before:  # a generator may be closed by a thread that did not enter the block
            _set_watching(before.pop())
        _leave()


def _label(root: Module, module: Module) -> str:
    """What an error calls a module: its path inside the outermost module that was called, and its class."""
    kind = type(module).__name__
    name = next((name for name, inner in root.named_modules() if inner is module), "")
    return f"{name} ({kind})" if name else kind


_set_label(_label)
