"""Where the time of a training step goes: samples of `perf`, by function, and the floor that its matrix products set.

    python -m benches.profile [--hidden 32 --batch 16 --inputs 16 --optimizer sgd --seconds 5 --threads 1]

`perf record -e cpu-clock` follows this module while it trains (`--run`, what the profiled process gets). For exact counts of
instructions without Python: `cargo bench --bench instructions -- --profile "step (32, 16, 16) SGD"`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benches.peers import machine, machine_work, rows, treadle_work

SHOWN = 25


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches.profile", description=__doc__.split("\n")[0])
    for name, value in (("hidden", 32), ("batch", 16), ("inputs", 16), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to sample (default: 5)")
    parser.add_argument("--run", action="store_true", help="only train, print microseconds of a step")
    return parser.parse_args()


def train(options: argparse.Namespace) -> float:
    """Seconds of a step, the mean over the time asked for."""
    treadle_work.threads(options.threads)
    step = treadle_work.step(options.hidden, options.batch, options.inputs, options.optimizer, True)
    for _ in range(20):
        step()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < options.seconds:
        for _ in range(10):
            step()
        count += 10
    return (time.perf_counter() - started) / count


def floor(options: argparse.Namespace) -> tuple[float, float]:
    """Operations of the step's products, and the seconds they take at the peak of the machine's multiply-adds."""
    args = {"h": options.hidden, "batch": options.batch, "d": options.inputs, "optimizer": options.optimizer, "norm": True}
    flops = rows.step_row("", "", args).flops
    machine_work.threads(options.threads)
    return flops, flops / machine.rate(*machine_work.multiply_add())


def main() -> int:
    """Prints the profile; 1 where there is no perf."""
    options = _options()
    if options.run:
        print(f"{train(options) * 1e6:.1f} µs a step", flush=True)
        return 0
    if not shutil.which("perf"):
        print("profile: expected perf (apt-get install linux-perf), got none", file=sys.stderr)
        return 1
    flops, seconds = floor(options)
    peak = f"{flops / seconds / 1e9:.0f} GFLOP/s, {machine_work.peak_kind()}"
    print(f"floor of the matrix products: {flops:,} operations, {seconds * 1e6:.2f} µs at {peak}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "perf.data"
        record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "5000", "-o", str(data)]
        subprocess.run([*record, sys.executable, "-m", "benches.profile", "--run", *sys.argv[1:]], check=True)
        form = ["--stdio", "--no-children", "--percent-limit", "0.5"]
        for title, by in (("by library", "dso"), ("by function", "dso,symbol")):
            command = ["perf", "report", "-i", str(data), *form, "--fields", f"overhead,{by}"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            lines = [" ".join(line.split()) for line in done.stdout.splitlines() if line.strip() and not line.startswith("#")]
            print("\n".join([f"\n{title}:", *lines[:SHOWN]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
