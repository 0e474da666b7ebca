"""Evaluation mode for a while.

Invariant: a module is in evaluation mode as long as anyone evaluates it, in whatever thread, and afterwards in the mode it was in
before the first of them. Flags alone change: a `train` of a module's own is not called, so nothing else it does is left to undo.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treadle.nn.module import Module

__all__ = ["evaluating"]

_lock = threading.Lock()
#: By identity of a module: how many evaluate it now, and its mode before the first did.
_held: dict[int, tuple[int, bool]] = {}


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode inside, for the model and what it is made of."""
    modules = list(model.modules())
    with _lock:
        for module in modules:
            count, before = _held.get(id(module), (0, module.training))
            _held[id(module)] = count + 1, before
            module.training = False
    try:
        yield
    finally:
        with _lock:
            for module in modules:
                count, before = _held.pop(id(module))
                if count > 1:
                    _held[id(module)] = count - 1, before
                else:
                    module.training = before
