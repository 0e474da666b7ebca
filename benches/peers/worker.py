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
    """How often to run `work` for one measurement; warms it up on the way.

    The first run is not counted: what a library compiles or sets up in it would make one run seem to fill a measurement, and that
    run would be a cold one.
    """
    work()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 2 * SLICE or count < 3:
        work()
        count += 1
    each = (time.perf_counter() - started) / count
    return max(1, int(SLICE / each))


def measure(work: Callable[[], Any], count: int) -> dict[str, float]:
    """Seconds, page faults and busy processors of one run: the mean of `count` in a row, after half as many not counted.

    Those wake the library's threads and the processor from the pause before: every library is measured in its steady state.
    """
    for _ in range(count // 2):
        work()
    faults, worked, started = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time(), time.perf_counter()
    for _ in range(count):
        work()
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return {"seconds": seconds / count, "faults": faults / count, "busy": worked / seconds}


class Worker:
    """The work at hand and how often a measurement runs it."""

    def __init__(self, module: Any) -> None:
        self.module, self.work, self.count = module, None, 0

    def build(self, name: str, args: dict[str, Any]) -> dict[str, Any]:
        """Takes on a row; `amount` is how much one run does where that is not the row itself."""
        self.drop()
        maker = getattr(self.module, name, None)
        made = maker(**args) if maker else None
        work, amount = made if isinstance(made, tuple) else (made, None)
        self.work = work
        self.count = calibrate(work) if work else 0
        return {"ready": work is not None, "amount": amount}

    def drop(self) -> dict[str, Any]:
        """Gives the work's memory back to the system, as far as the library does."""
        self.work = None
        gc.collect()
        getattr(self.module, "release", lambda: None)()
        return {}

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """To {"row": …}, {"drop": true} or {"go": true}."""
        if "row" in message:
            return self.build(message["row"], message["args"])
        if "drop" in message:
            return self.drop()
        return measure(self.work, self.count) if self.work else {"seconds": None}


def main() -> None:
    """Answers one line for each line."""
    library, threads = sys.argv[1], sys.argv[2]
    module = importlib.import_module(f"benches.peers.{library}_work")
    module.threads(None if threads == "default" else int(threads))
    gc.disable()
    worker = Worker(module)
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
