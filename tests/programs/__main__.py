"""Checks random programs: python -m tests.programs --count 10000"""

from __future__ import annotations

import argparse
import sys
import time

from tests.programs.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.programs")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    result = run(options.count, options.seed)
    print(f"{result.programs} programs of {result.steps} steps agree with NumPy, {time.perf_counter() - start:.0f} s")
    print(
        f"{result.gradients} gradients agree with differences, {result.kinks} were at a kink, {result.constant} programs have none"
    )
    print(", ".join(f"{name} {count}" for name, count in sorted(result.names.items())))
    return 0 if result.programs >= options.count else 1


if __name__ == "__main__":
    sys.exit(main())
