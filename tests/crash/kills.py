"""Starts, kills and resumes `tests/crash/run.py`."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Result", "kill_and_resume"]

_TIMEOUT = 120.0


@dataclass
class Result:
    """What came of it."""

    kills: int = 0
    inside_writes: int = 0
    fallbacks: int = 0
    runs: int = 0
    equal: int = 0


def kill_and_resume(folder: Path, kills: int, seed: int) -> Result:
    """Kills runs, one after another, until there were so many kills; the last run is let end."""
    draw, result = random.Random(seed), Result()
    undisturbed = folder / "undisturbed"
    seconds = _finish(undisturbed)
    wanted = (undisturbed / "final.safetensors").read_bytes()
    while result.kills < kills:
        run = folder / f"run{result.runs}"
        run.mkdir()
        # A run that made no progress between kills would never end.
        for _ in range(min(10, kills - result.kills)):
            _kill(run, draw.uniform(0.0, seconds / 3), result)
        _finish(run)
        result.runs += 1
        result.equal += (run / "final.safetensors").read_bytes() == wanted
    return result


def _start(run: Path) -> subprocess.Popen[bytes]:
    run.mkdir(exist_ok=True)
    if (run / "run.safetensors").exists() or list(run.glob("run.*.safetensors")):
        (run / "begun").touch()
    command = [sys.executable, str(Path(__file__).with_name("run.py")), str(run)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)


def _kill(run: Path, after: float, result: Result) -> None:
    """Starts the run, and kills it some seconds after it has begun to train."""
    process = _start(run)
    before, deadline = _stamp(run), time.monotonic() + _TIMEOUT
    while _stamp(run) == before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(after)
    process.kill()
    _, said = process.communicate()
    if process.returncode == 0:
        return  # it had ended: no kill
    assert process.returncode == -9, said.decode()
    result.kills += 1
    result.fallbacks += b"an older checkpoint" in said
    left = list(run.glob(".*"))
    result.inside_writes += bool(left) or not (run / "run.safetensors").exists()
    for file in left:  # so that the next kill is not counted for this one's
        file.unlink()


def _stamp(run: Path) -> int:
    """When the newest checkpoint was written; 0 where there is none."""
    try:
        return (run / "run.safetensors").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _finish(run: Path) -> float:
    """Lets a run end; the seconds it took."""
    start = time.monotonic()
    _, said = (process := _start(run)).communicate(timeout=_TIMEOUT)
    assert process.returncode == 0, said.decode()
    return time.monotonic() - start
