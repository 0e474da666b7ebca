"""Kills a training run with SIGKILL at random moments and resumes it each time, until it ends.

    python -m tests.crash --kills 200

The final weights must equal those of a run that nobody disturbed, byte for byte. Checkpoints follow one another so closely
that many kills fall into a write; the killed run's folder shows which.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.crash.kills import kill_and_resume


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = kill_and_resume(Path(folder), options.kills, options.seed)
    print(
        f"{result.kills} kills, {result.inside_writes} of them inside a write, {result.fallbacks} resumes from an older checkpoint"
    )
    print(f"{result.runs} runs ended, {result.equal} of them with the bytes of the undisturbed run")
    return 0 if result.equal == result.runs and result.kills == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
