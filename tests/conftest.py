"""What all tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings


# Before anything imports it, so that failures in the shipped suites show values.
pytest.register_assert_rewrite("s3edge.testing")

from s3edge.testing.programs import REDIS_SERVER  # noqa: E402 - after the line above
from s3edge.testing.standins.redis_process import RedisProcess  # noqa: E402 - likewise


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


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisProcess]:
    """Run a Redis server that has counted nothing, and that the test may stop or pause."""
    REDIS_SERVER.require()
    with RedisProcess(tmp_path / "redis.log") as server:
        yield server
