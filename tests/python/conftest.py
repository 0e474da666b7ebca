"""Settings of all tests: each draws the same numbers every time, hypothesis too, which takes the time it needs."""

import pytest
from hypothesis import HealthCheck, settings

import treadle

settings.register_profile("treadle", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("treadle")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The default generator begins anew, whichever tests ran before."""
    treadle.manual_seed(0)
