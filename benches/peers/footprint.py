"""One measurement of a fresh process: seconds of an import, resident memory, peak memory of a step, sizes on disk.

    python -m benches.peers.footprint WORK LIBRARY THREADS ARGS

Prints {"value": …}, or {"value": null, "why": …} where the library has no such thing. Only what is measured is imported before.
"""

from __future__ import annotations

import json
import sys
from typing import Any

WITH_LAYERS = {
    "treadle": "from treadle import nn, optim",
    "torch": "import torch",
    "jax": "import jax, jax.numpy",
    "sklearn": "import sklearn.neural_network",
}
DISTRIBUTIONS = {"treadle": "treadle", "torch": "torch", "jax": "jax", "sklearn": "scikit-learn"}
STEPS = 3
TINY = {"h": 8, "batch": 8, "d": 8}

Answer = dict[str, Any]


def import_seconds(library: str, threads: str, layers: bool, after_numpy: bool) -> Answer:
    """Of the library with its layers; without them of treadle alone, as `import torch` has no such part."""
    import time

    if not layers and library != "treadle":
        return {"value": None, "why": ""}
    if after_numpy:
        import numpy  # noqa: F401
    statement = WITH_LAYERS[library] if layers else "import treadle"
    started = time.perf_counter()
    exec(statement, {})
    return {"value": time.perf_counter() - started}


def resident(library: str, threads: str) -> Answer:
    """Bytes of the whole process, interpreter included, after the import with layers."""
    exec(WITH_LAYERS[library], {})
    return {"value": _status("VmRSS")}


def wheel(library: str, threads: str) -> Answer:
    """Bytes of the wheel in dist/."""
    from pathlib import Path

    if library != "treadle":
        return {"value": None, "why": "not measured: an installed package does not keep its wheel"}
    found = sorted(Path("dist").glob("treadle-*.whl"), key=lambda path: path.stat().st_mtime)
    return {"value": found[-1].stat().st_size} if found else {"value": None, "why": "no wheel in dist/ (make wheel)"}


def installed(library: str, threads: str, needs: bool) -> Answer:
    """Bytes of the files that the installed distribution lists, of those it requires too if `needs`."""
    from importlib import metadata

    name = DISTRIBUTIONS[library]
    try:
        names = _closure(name) if needs else {name}
        return {"value": sum(_size(metadata.distribution(n)) for n in names)}
    except metadata.PackageNotFoundError as error:
        return {"value": None, "why": f"not installed as a package: {error.name}"}


def _size(distribution: Any) -> int:
    paths = [file.locate() for file in distribution.files or []]
    return sum(path.stat().st_size for path in paths if path.is_file())


def _closure(name: str) -> set[str]:
    """The distribution and all that it requires on this machine without extras."""
    from importlib import metadata

    from packaging.requirements import Requirement

    found, left = set(), [name]
    while left:
        name = left.pop().lower()
        if name in found:
            continue
        found.add(name)
        needed = [Requirement(text) for text in metadata.requires(name) or []]
        left += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def peak_memory(library: str, threads: str, alone: bool, **args: Any) -> Answer:
    """Highest resident bytes during training steps over those before, once the library has settled.

    Parameters, gradients, the optimizer's state and the batch count: without the library they would not be there. What is loaded
    and set up at the first step of all, whatever its size, counts unless the step is measured `alone`: after a tiny one.
    """
    import gc
    import importlib
    from pathlib import Path

    module = importlib.import_module(f"benches.peers.{library}_work")
    module.threads(None if threads == "default" else int(threads))
    if alone:
        _repeat(module.step(**args | TINY))
    before = _status("VmRSS")
    work = module.step(**args)
    if work is None:
        return {"value": None, "why": ""}
    _repeat(work)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far becomes what there is now
    _repeat(work)
    return {"value": _status("VmHWM") - before}


def _repeat(work: Any) -> None:
    for _ in range(STEPS if work else 0):
        work()


def _status(field: str) -> int:
    """Bytes that the system notes for this process."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main() -> None:
    """Prints one answer."""
    work, library, threads, args = sys.argv[1:]
    if work != "wheel" and not sys.platform.startswith("linux"):
        print(json.dumps({"value": None, "why": "measured on Linux only"}))
        return
    works = {f.__name__: f for f in (import_seconds, resident, wheel, installed, peak_memory)}
    print(json.dumps(works[work](library, threads, **json.loads(args))))


if __name__ == "__main__":
    main()
