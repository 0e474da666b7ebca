"""What the machine is and can do, measured in the same run."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import treadle
from benches.peers import machine_work

SHARE = 0.8  # of the free memory that a row may take
OUT_OF_CACHE = 100_000_000


def facts() -> dict[str, Any]:
    """Processor, versions, and the limits at one and all threads: copies beyond the cache and the peak of multiply-adds."""
    out: dict[str, Any] = {"processor": _processor(), "cores": os.cpu_count(), "features": treadle._core.cpu_features()}
    size = OUT_OF_CACHE if not lacking_memory(8 * OUT_OF_CACHE) else OUT_OF_CACHE // 10
    for label, threads in (("one thread", 1), ("all threads", None)):
        machine_work.threads(threads)
        out[f"copy of {4 * size >> 20} MiB, {label}, GB/s read and written"] = round(rate(*machine_work.copy(size)) / 1e9, 1)
        for loaded, kind in ((False, machine_work.peak_kind()), (True, "the same, every second operand loaded")):
            out[f"peak, {label}, GFLOP/s ({kind})"] = round(rate(*machine_work.multiply_add(loaded)) / 1e9, 1)
    if _has("torch"):
        out["products of PyTorch"] = mkl()
    out["python"] = platform.python_version()
    out |= {name: metadata.version(name) for name in ("numpy", "torch", "jax", "scikit-learn") if _has(name)}
    return out | {"treadle": treadle.__version__}


def mkl() -> str:
    """Which instructions PyTorch's products use, as MKL itself says: `MKL_ENABLE_INSTRUCTIONS=AVX2` holds them to less."""
    program, environment = "import torch; torch.ones(64, 64) @ torch.ones(64, 64)", os.environ | {"MKL_VERBOSE": "1"}
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    found = re.search(r"\(Intel\(R\) (AVX[^)]*)\)", said.stdout)
    return f"{found[1]}, by MKL" if found else "not by MKL"


def rate(work: Any, amount: float, repeats: int = 9) -> float:
    """`amount` a second, as `work` does it: the median after two runs that warm up."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return amount / median(times[2:])


def lacking_memory(needed: int) -> str:
    """Why that many bytes are too many for what is free now, or nothing."""
    free = _free_memory()
    if free is None or needed <= SHARE * free:
        return ""
    return f"not measured: needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"


def _free_memory() -> int | None:
    """Bytes that the system, or the cgroup of this process, has left."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")))
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, StopIteration, ValueError):
        pass
    return min(found, default=None)


def _has(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def median(values: list[float]) -> float:
    """The middle value."""
    return statistics.median(values)
