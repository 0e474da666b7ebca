"""`treadle info`: the version, and what the core makes of this machine."""

from __future__ import annotations

import argparse
import platform

from treadle._core import __version__, cpu_features, get_num_threads, memory_stats

__all__ = ["run"]


def run(_options: argparse.Namespace) -> int:
    """Prints one fact per line."""
    facts = {
        "treadle": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cpu features in use": cpu_features(),
        "threads": get_num_threads(),
    } | {f"pool {name.replace('_', ' ')}": value for name, value in memory_stats().items()}
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        print(f"{name:<{width}}{value}")
    return 0
