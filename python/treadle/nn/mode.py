"""Training and evaluation mode, and evaluation mode for a while.

Invariant: a module is in evaluation mode as long as anyone evaluates it, in whatever thread, and afterwards in the mode it was in
before the first of them. Flags alone change: a `train` of a module's own is not called, so nothing else it does is left to undo. An
explicit `train()` or `eval()` ends that: the mode is the caller's from then on. In a forked child only the thread that forked
goes on, and what others evaluated is in the mode it was in.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from treadle.nn.module import Module

__all__ = ["evaluating", "set_mode"]


#: The thread that evaluates, and what tells its blocks apart.
_Block: TypeAlias = tuple[int, object]


class _Hold:
    """A module, its mode before the first of the blocks that evaluate it, and which they are."""

    def __init__(self, module: Module) -> None:
        self.module, self.before = module, module.training
        self.blocks: set[_Block] = set()


# A handler of a signal may evaluate a model in the middle of what holds it.
_lock = threading.RLock()
#: By identity of a module.
_holds: dict[int, _Hold] = {}


def set_mode(module: Module, training: bool) -> None:
    """What `train()` and `eval()` do to one module."""
    with _lock:
        _holds.pop(id(module), None)
        module.training = training


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode inside, for the model and what it is made of."""
    block = threading.get_ident(), object()
    held: list[tuple[Module, _Hold]] = []
    try:
        with _lock:
            for module in model.modules():
                hold = _holds.get(id(module))
                if hold is None or module.training:
                    # Nobody evaluates it: such a hold is what two signals left of a block.
                    hold = _Hold(module)
                held.append((module, hold))
                hold.blocks.add(block)
                _holds[id(module)] = hold
                module.training = False
        yield
    finally:
        try:
            _leave(held, block)
        except BaseException:
            _leave(held, block)  # A signal cut it off; what it did already does no harm a second time.
            raise


def _leave(held: list[tuple[Module, _Hold]], block: _Block | None) -> None:
    """Takes the block out of all holds, and ends those that are empty."""
    with _lock:
        for module, hold in held:
            hold.blocks.discard(block)
            if not hold.blocks and _holds.get(id(module)) is hold:
                module.training = hold.before
                _holds.pop(id(module), None)


def _renew() -> None:
    """In a forked child: a lock that nobody holds, and no block of a thread that is not there."""
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()
    for hold in _holds.values():
        hold.blocks = {block for block in hold.blocks if block[0] == threading.get_ident()}
    _leave([(hold.module, hold) for hold in _holds.values()], None)


os.register_at_fork(after_in_child=_renew)
