"""Settings of all tests: hypothesis draws the same examples every time, and takes the time it needs."""

from hypothesis import HealthCheck, settings

settings.register_profile("treadle", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("treadle")
