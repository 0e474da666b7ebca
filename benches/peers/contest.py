"""The processes that measure, and a row measured in all of them by turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from benches.peers import machine
from benches.peers.rows import Row

# Before each measurement, so that threads of the one before that still spin have gone to sleep.
PAUSE = 0.05
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# XLA makes as many threads as it believes there are processors; its flags for fewer have no effect.
XLA_ONE = {"NPROC": "1"}
# Processors that one thread keeps busy, with what a library's others do at the edges; a second one at work makes it nearly two.
BUSIEST = 1.5
CONTESTANTS: list[tuple[str, str, dict[str, str]]] = [
    ("treadle", "1", {}),
    ("treadle", "default", {}),
    ("torch", "1", ONE_THREAD),
    ("torch", "default", {}),
    ("jax", "1", XLA_ONE | ONE_THREAD),
    ("jax", "default", {}),
    ("sklearn", "default", {}),
    ("machine", "1", ONE_THREAD),
    ("machine", "default", {}),
]
TORCH_OPTIMIZERS = ("plain", "foreach", "fused")
TORCH_LOADERS = ("by row", "by batch")
# A copy of fewer numbers is bound by calls.
COPIED = 1_000_000
# Arrays of a row's size that a process holds at once: two inputs, a result and one between.
HELD = 4


def environment(extra: dict[str, str]) -> dict[str, str]:
    """Of a process; bytecode is written, as it is where a package was installed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | extra | {"JAX_PLATFORMS": "cpu"}


class Contestant:
    """A worker process."""

    def __init__(self, library: str, threads: str, extra: dict[str, str]) -> None:
        self.library, self.threads = library, threads
        command = [sys.executable, "-m", "benches.peers.worker", library, threads]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment(extra))

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Sends one message and waits for the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"peers: expected an answer from {self.library}, got the end of its process")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def prepare(self, row: Row, variant: str) -> float | None:
        """Builds the work of a row; answers what its seconds are multiplied by, or None where the library has no such work."""
        if variant not in _variants(self.library, row.work):
            return None
        if self.library != "machine":
            args = row.args | ({"variant": variant} if variant else {})
            return 1.0 if self.ask({"row": row.work, "args": args})["ready"] else None
        if row.flops:
            return float(row.flops / self.ask({"row": "multiply_add", "args": {}})["amount"])
        if row.size >= COPIED:
            return float(row.bytes / self.ask({"row": "copy", "args": {"size": row.size}})["amount"])
        return None


def _variants(library: str, work: str) -> tuple[str, ...]:
    """PyTorch's optimizers come in three kinds, its DataLoader in two."""
    kinds = {"step": TORCH_OPTIMIZERS, "peak_memory": TORCH_OPTIMIZERS, "epoch": TORCH_LOADERS}
    return kinds.get(work, ("",)) if library == "torch" else ("",)


def _key(library: str, threads: str, variant: str) -> str:
    return "/".join(filter(None, (library, threads, variant)))


def check_threads(results: list[dict[str, Any]]) -> None:
    """Whether those of one thread kept one processor busy."""
    found = [
        f"{machine.median(processors):.2f} of {key} in {result['name']}"
        for result in results
        for key, processors in result.get("busy", {}).items()
        if key.split("/")[1] == "1" and machine.median(processors) > BUSIEST
    ]
    if found:
        raise RuntimeError(f"peers: expected one busy processor where there is one thread, got {', '.join(found)}")


def run_row(row: Row, contestants: list[Contestant], rounds: int) -> dict[str, Any]:
    """Seconds, page faults and busy processors by "library/threads/variant", or why there are none; "machine" is the floor."""
    lacking = machine.lacking_memory(4 * HELD * row.size * len(contestants))
    if lacking:
        return {"skipped": lacking}
    samples: dict[str, list[float]] = {}
    faults: dict[str, list[float]] = {}
    busy: dict[str, list[float]] = {}
    for variant in dict.fromkeys(variant for c in contestants for variant in _variants(c.library, row.work)):
        scales = [(c, c.prepare(row, variant)) for c in contestants]
        active = [(c, scale) for c, scale in scales if scale is not None]
        for _ in range(rounds):
            for c, scale in active:
                time.sleep(PAUSE)
                key, answer = _key(c.library, c.threads, variant), c.ask({"go": True})
                samples.setdefault(key, []).append(answer["seconds"] * scale)
                faults.setdefault(key, []).append(answer["faults"])
                busy.setdefault(key, []).append(answer["busy"])
    for c in contestants:
        c.ask({"drop": True})
    return {"samples": samples, "busy": busy, "faults": {key: machine.median(values) for key, values in faults.items()}}


def run_fresh(row: Row, rounds: int) -> dict[str, Any]:
    """The same for a row whose every measurement is a new process; sizes take one round."""
    samples: dict[str, list[float]] = {}
    notes: dict[str, str] = {}
    for _ in range(1 if row.work in ("wheel", "installed") else rounds):
        for library, threads, extra in CONTESTANTS:
            if library == "machine" or (row.work != "peak_memory" and threads != "default"):
                continue
            for variant in _variants(library, row.work):
                args = row.args | ({"variant": variant} if variant else {})
                command = [sys.executable, "-m", "benches.peers.footprint", row.work, library, threads, json.dumps(args)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment(extra))
                answer = json.loads(done.stdout)
                if answer["value"] is None:
                    notes[library] = answer["why"]
                else:
                    samples.setdefault(_key(library, threads, variant), []).append(answer["value"])
    return {"samples": samples, "notes": notes}


def run(row: Row, contestants: list[Contestant], rounds: int, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """A row's result: the row, its samples behind those of the passes before, and their medians."""
    found = run_fresh(row, rounds) if row.fresh else run_row(row, contestants, rounds)
    if before and "skipped" in found:
        return before
    for kind in ("samples", "busy"):
        earlier = before.get(kind, {}) if before else {}
        found[kind] = {key: earlier.get(key, []) + values for key, values in found.get(kind, {}).items()}
    return row.to_json() | found | {"median": {key: machine.median(values) for key, values in found["samples"].items()}}
