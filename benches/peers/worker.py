"""One library at one number of threads, in a process of its own: reads rows from stdin, writes times to stdout."""

from __future__ import annotations

import gc
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

SLICE = 0.02  # seconds of one measurement


def calibrate(work: Callable[[], Any]) -> int:
    """How often to run `work` for one measurement; warms it up on the way."""
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 2 * SLICE or count < 3:
        work()
        count += 1
    each = (time.perf_counter() - started) / count
    return max(1, int(SLICE / each))


def measure(work: Callable[[], Any], count: int) -> dict[str, float]:
    """Seconds and page faults of one run, as the mean of `count` in a row, after half as many that are not counted.

    Those wake the library's threads and the processor from the pause before: every library is measured in its steady state.
    """
    for _ in range(count // 2):
        work()
    faults, started = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    for _ in range(count):
        work()
    seconds = (time.perf_counter() - started) / count
    return {"seconds": seconds, "faults": (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / count}


def main() -> None:
    """Answers {"row": …} with {"ready": …} and each {"go": true} with {"seconds": …}."""
    library, threads = sys.argv[1], sys.argv[2]
    module = importlib.import_module(f"benches.peers.{library}_work")
    module.threads(None if threads == "default" else int(threads))
    gc.disable()
    work, count = None, 0
    for line in sys.stdin:
        message = json.loads(line)
        if "row" in message:
            gc.collect()
            build = getattr(module, message["row"], None)
            work = build(**message["args"]) if build else None
            count = calibrate(work) if work else 0
            answer: dict[str, Any] = {"ready": work is not None}
        else:
            answer = measure(work, count) if work else {"seconds": None}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
