"""Time that passes at once: what the tests of waiting, retrying and leasing run on."""

import asyncio
import selectors
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest

from s3edge.ports import Clock
from s3edge.testing.clock import START


class JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for a timer, moves the time to it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; without a timer, wait for it as usual."""
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout is not None:
            self.now += max(0.0, timeout)
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """
    An event loop on which a sleep takes no time.

    The code under test keeps its own timeouts and intervals, and a test of them takes milliseconds.
    """

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the time that the timers have reached."""
        return self._jumping.now


class LoopClock:
    """Goes with the loop's time, so that leases run out while a test sleeps."""

    def now(self) -> datetime:
        """Implement ``Clock``."""
        return START + timedelta(seconds=anyio.current_time())


@pytest.fixture(scope="session")
def jumping_loop() -> tuple[str, dict[str, Any]]:
    """Name the backend on which sleeps take no time; for ``anyio_backend``."""
    return "asyncio", {"loop_factory": JumpingLoop}


@pytest.fixture
def clock() -> Clock:
    """Go with the loop's time."""
    return LoopClock()
