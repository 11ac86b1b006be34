"""What pytest needs before the test is imported."""

import pytest


# Before anything imports it, so that failures in the suite show values.
pytest.register_assert_rewrite("s3edge.testing")

# A whole deployment in memory, for test_deployed.py.
pytest_plugins = ["s3edge.testing.pytest_plugin"]


@pytest.fixture
def anyio_backend() -> str:
    """Return the event loop that the suite runs on."""
    return "asyncio"
