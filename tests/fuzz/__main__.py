"""Coverage-guided fuzzing of one reader: python -m tests.fuzz READER [options and folders of libFuzzer]."""

from __future__ import annotations

import resource
import sys

import atheris

with atheris.instrument_imports(include=["treadle"]):
    import treadle  # noqa: F401
    from treadle import serialization, torch_file  # noqa: F401
    from treadle.data import idx, table  # noqa: F401

from tests.fuzz.readers import READERS

ROOM = 1 << 30


def limit_memory() -> None:
    """From here on no more than 1 GiB can be asked for: a MemoryError is a finding."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.RLIM_INFINITY))


def main() -> None:
    name = sys.argv.pop(1)
    atheris.Setup([*sys.argv, "-timeout=10", "-rss_limit_mb=2048"], READERS[name])
    limit_memory()
    atheris.Fuzz()


main()
