"""Settings of all tests: each draws the same numbers every time, hypothesis too, which takes the time it needs.
And the fixtures of those of the command line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import treadle
from tests.python.command import QUICK

settings.register_profile("treadle", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("treadle")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The default generator begins anew, whichever tests ran before; NumPy's, too, from which an estimator without
    random_state draws its seed."""
    treadle.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """A CSV of numbers, a category and three classes."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, 120)
    lines = ["length,colour,width,kind"]
    for kind in kinds:
        length, width = rng.normal(100 + 10 * kind, 1), rng.normal(5 - kind, 0.5)
        lines.append(f"{length:.3f},{'red' if kind == 1 else 'blue'},{width:.3f},{'abc'[kind]}")
    path = tmp_path / "flowers.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than these trainings."""
    blank = SimpleNamespace(savefig=lambda path: None)
    monkeypatch.setattr("treadle.training.plots.curves", lambda *_: blank)
    monkeypatch.setattr("treadle.training.plots.confusion", lambda *_: blank)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on the digits."""
    from treadle.cli.main import main

    run = tmp_path_factory.mktemp("finished") / "run"
    assert main(["train", *QUICK, "--epochs", "1", "--quiet", "--out", str(run)]) == 0
    return run
