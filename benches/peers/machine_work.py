"""The machine's own limits, measured like a library: copies of arrays, and multiply-adds that wait for nothing.

Every function gives the work and how much of it one run does, so that a row's floor is its bytes or operations over that rate.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

Limit = tuple[Callable[[], Any], float]

# A run does about this much, so that waking the threads, some 50 µs, does not count.
COPIED = 64 << 20
LOOPS = 1_000_000
ACCUMULATORS = 12  # at least latency times instructions per cycle, 4 times 2
_pool: list[ThreadPoolExecutor] = []
_pages: list[mmap.mmap] = []  # code in use must stay mapped
_count = [os.cpu_count() or 1]


def threads(n: int | None) -> None:
    """Sets the number of threads; None stands for one for each core."""
    _count[0] = n or os.cpu_count() or 1


def _each(jobs: list[Callable[[], Any]]) -> Callable[[], Any]:
    """All jobs at the same time, each in a thread of its own, and waited for."""
    if len(jobs) == 1:
        return jobs[0]
    if not _pool:
        _pool.append(ThreadPoolExecutor(len(jobs)))
    return lambda: [done.result() for done in [_pool[0].submit(job) for job in jobs]]


def copy(size: int) -> Limit:
    """`size` float32 numbers copied by NumPy, each thread its part, over and over without waiting for the others."""
    source, target = np.ones(size, np.float32), np.empty(size, np.float32)
    parts = list(zip(np.array_split(source, _count[0]), np.array_split(target, _count[0]), strict=True))
    repeats = max(1, COPIED // source.nbytes)

    def job(read: Any, written: Any) -> None:
        for _ in range(repeats):
            np.copyto(written, read)

    return _each([partial(job, *part) for part in parts]), 2.0 * source.nbytes * repeats


def multiply_add(loaded: bool = False) -> Limit:
    """Fused multiply-adds on registers: the peak of any product.

    Args:
        loaded: Whether every second one takes an operand from the first-level cache, as those of a product have to: processors
            lower their clock by how much such loops do.
    """
    loop, operations = _fma_loop(loaded)
    if loop is None:
        return _product()
    numbers = (ctypes.c_float * 32)(*[0.5] * 32)
    line = ctypes.addressof(numbers) + -ctypes.addressof(numbers) % 64  # 16 of them in one line of the cache

    def job(_held: Any = numbers) -> None:  # as long as there is a job
        loop(line, LOOPS)

    return _each([job] * _count[0]), operations * LOOPS * _count[0]


def _product() -> Limit:
    """Where there is no loop for this processor: NumPy's product of 1024 by 1024, which is below the peak."""
    a = np.ones((1024, 1024), np.float32)
    return (lambda: a @ a), 2.0 * 1024**3


def peak_kind() -> str:
    """What the peak of multiply-adds is measured with."""
    width = _width()
    return f"{width}-bit multiply-adds on registers" if width else "NumPy's product of 1024³"


def _width() -> int:
    """Bits of a vector register: 512, 256, or 0 where there is no loop."""
    if platform.machine() not in ("x86_64", "AMD64") or not Path("/proc/cpuinfo").exists():
        return 0
    flags = next((line.split() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), [])
    return 512 if "avx512f" in flags else 256 if "avx2" in flags and "fma" in flags else 0


def _fma_loop(loaded: bool) -> tuple[Any, float]:
    """A function of (address of 16 floats, iterations), and the operations of one iteration; None where there is none.

    Machine code, as no library has a function that does nothing else: `vbroadcastss` fills registers 0 to 11, 14 and 15 with the
    first float, then a loop of `vfmadd231ps` adds the product of 14 and 15 to each of the first twelve. `loaded` puts the floats
    in memory in the place of 15 in every second one.
    """
    width = _width()
    if not width:
        return None, 0.0
    wide = width == 512

    def broadcast(register: int) -> bytes:
        end = [0x18, 0x07 + 8 * (register % 8)]
        high = register >= 8
        return bytes([0x62, 0x72 if high else 0xF2, 0x7D, 0x48, *end] if wide else [0xC4, 0x62 if high else 0xE2, 0x7D, *end])

    def multiply_add(register: int) -> bytes:
        memory = loaded and register % 2 == 1
        end = [0xB8, (0x07 if memory else 0xC7) + 8 * (register % 8)]
        prefix = (0xD2 if wide else 0xC2) + 0x20 * memory - 0x80 * (register >= 8)
        return bytes([0x62, prefix, 0x0D, 0x48, *end] if wide else [0xC4, prefix, 0x0D, *end])

    body = b"".join(map(multiply_add, range(ACCUMULATORS))) + b"\x48\xff\xce"  # dec rsi
    jump = b"\x0f\x85" + (-len(body) - 6).to_bytes(4, "little", signed=True)  # jnz to the start of the body
    code = b"".join(map(broadcast, [*range(ACCUMULATORS), 14, 15])) + body + jump + b"\xc5\xf8\x77\xc3"  # vzeroupper, ret
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    _pages.append(page)
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_long)(address), 2.0 * ACCUMULATORS * width / 32
