"""Fleets of gateways and workers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from s3edge.testing.programs import REDIS_SERVER
from s3edge.testing.standins.fleet import Fleet, FleetPlan


StartFleet = Callable[[FleetPlan], Fleet]


@pytest.fixture
def start_fleet(tmp_path: Path) -> Iterator[StartFleet]:
    """Start fleets, and end them after the test."""
    REDIS_SERVER.require()
    with ExitStack() as stack:

        def start(plan: FleetPlan) -> Fleet:
            folder = tmp_path / "fleet"
            folder.mkdir()
            return stack.enter_context(Fleet(folder, plan))

        yield start
