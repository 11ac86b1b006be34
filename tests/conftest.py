"""What all tests share."""

import pytest
from hypothesis import HealthCheck, settings


# Before anything imports it, so that failures in the shipped suites show values.
pytest.register_assert_rewrite("s3edge.testing")

settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# New examples on every run: pytest --hypothesis-profile=explore
settings.register_profile(
    "explore", settings.get_profile("repeatable"), derandomize=False, max_examples=500
)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Return the event loop that async tests run on."""
    return "asyncio"
