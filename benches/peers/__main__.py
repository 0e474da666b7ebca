"""Runs every row in every library, interleaved, and writes the table.

    python -m benches.peers [--only TEXT] [--rounds N] [--out FOLDER]

Every library runs in a process of its own. In each round every process measures the row once, in turn, so that whatever else the
machine does hits all of them alike; the table shows medians over the rounds. A row is shown whoever wins it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benches.peers import machine, report
from benches.peers.rows import Row, rows

# Before each measurement, so that threads of the one before that still spin have gone to sleep.
PAUSE = 0.05
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
XLA_ONE = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}
CONTESTANTS: list[tuple[str, str, dict[str, str]]] = [
    ("treadle", "1", {}),
    ("treadle", "default", {}),
    ("torch", "1", ONE_THREAD),
    ("torch", "default", {}),
    ("jax", "1", XLA_ONE | ONE_THREAD),
    ("jax", "default", {}),
    ("sklearn", "default", {}),
]


class Contestant:
    """A worker process, and how its optimizer runs where that is a choice."""

    def __init__(self, library: str, threads: str, environment: dict[str, str]) -> None:
        self.library, self.threads = library, threads
        command = [sys.executable, "-m", "benches.peers.worker", library, threads]
        env = os.environ | environment | {"JAX_PLATFORMS": "cpu"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

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

    def variants(self, row: Row) -> list[str]:
        """PyTorch's optimizers come in three kinds."""
        return ["plain", "foreach", "fused"] if self.library == "torch" and row.work == "step" else [""]


def run_row(row: Row, contestants: list[Contestant], rounds: int) -> dict[str, float]:
    """Median seconds by "library/threads/variant"."""
    times: dict[str, list[float]] = {}
    for variant in ("", "plain", "foreach", "fused"):
        active = []
        for c in contestants:
            if variant in c.variants(row):
                args = row.args | ({"variant": variant} if variant else {})
                if c.ask({"row": row.work, "args": args})["ready"]:
                    active.append(c)
        for _ in range(rounds):
            for c in active:
                time.sleep(PAUSE)
                key = "/".join(filter(None, (c.library, c.threads, variant)))
                times.setdefault(key, []).append(c.ask({"go": True})["seconds"])
    return {key: machine.median(values) for key, values in times.items()}


def main(groups: tuple[str, ...] = ()) -> None:
    """Measures and reports; `groups` limits it to some."""
    parser = argparse.ArgumentParser(prog="python -m benches.peers", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="only rows whose group or name contains this text")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each row and library (default: 9)")
    parser.add_argument("--out", type=Path, default=Path("runs/peers"), help="folder for the table (default: runs/peers)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    facts = machine.facts()
    print("\n".join(f"{name}: {value}" for name, value in facts.items()), flush=True)
    contestants = [Contestant(*c) for c in CONTESTANTS]
    results: list[dict[str, Any]] = []
    for row in rows():
        if (options.only in row.group or options.only in row.name) and (not groups or row.group in groups):
            results.append(row.to_json() | {"seconds": run_row(row, contestants, options.rounds)})
            print(report.line(results[-1]), flush=True)
    (options.out / "peers.json").write_text(json.dumps({"machine": facts, "rows": results}, indent=1))
    (options.out / "peers.md").write_text(report.table(facts, results))
    report.chart(results, options.out / "peers.png")
    print(f"{options.out}: peers.json, peers.md, peers.png")


if __name__ == "__main__":
    main()
