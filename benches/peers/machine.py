"""What the machine can do, measured in the same run: copy bandwidth and the peak of a large product, per core."""

from __future__ import annotations

import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import treadle


def _best(work: Any, repeats: int = 7) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def facts() -> dict[str, Any]:
    """Processor, cores, bandwidth in GB/s (read and written) and GFLOP/s of a product that fits the cache."""
    source, target = np.ones(1 << 24, np.float32), np.empty(1 << 24, np.float32)
    copy = 2 * source.nbytes / _best(lambda: np.copyto(target, source)) / 1e9
    a = treadle.randn(512, 512)
    before = treadle.get_num_threads()
    treadle.set_num_threads(1)
    one = 2 * 512**3 / _best(lambda: a @ a, 30) / 1e9
    treadle.set_num_threads(before)
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "features": treadle._core.cpu_features(),
        "copy GB/s": round(copy, 1),
        "512x512 product GFLOP/s, one thread": round(one, 1),
        "python": platform.python_version(),
        "treadle": treadle.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def median(values: list[float]) -> float:
    """The middle value."""
    return statistics.median(values)
