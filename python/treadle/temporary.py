"""Files and folders that stand in for others until those are whole, and what killed processes left of them.

Invariant: what a living process holds is not taken away. It holds a lock, which ends with the process however that ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["ASIDE", "aside", "stand_in", "sweep"]

_PREFIX = ".treadle-"
ASIDE = f"{_PREFIX}run-"


def stand_in(place: Path) -> tuple[Path, int]:
    """A new file beside `place`, open to be written and held while it is; those that were left of such are taken away."""
    prefix = f"{_PREFIX}{zlib.crc32(os.fsencode(place.name)):08x}-"
    sweep(place.parent, prefix)
    while True:
        path = place.with_name(prefix + os.urandom(8).hex())
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        if _hold(handle):
            return path, handle
        os.close(handle)


@contextmanager
def aside(folder: Path) -> Iterator[Path]:
    """A new folder inside another, held until the end and then taken away."""
    while True:
        with TemporaryDirectory(prefix=ASIDE, dir=folder) as path:
            try:
                handle = os.open(path, os.O_RDONLY)
            except FileNotFoundError:  # somebody took it away before
                continue
            try:
                if _hold(handle):
                    yield Path(path)
                    return
            finally:
                os.close(handle)


def sweep(folder: Path, prefix: str) -> None:
    """Takes away what begins like this and nobody holds, as far as that can be done."""
    with suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(prefix):
                _take_away(folder / name)


def _take_away(path: Path) -> None:
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        finally:
            os.close(handle)


def _hold(handle: int) -> bool:
    """Holds what was just made; False: somebody took it away before."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # without locks nothing is taken away
        return True
    return os.fstat(handle).st_nlink > 0
