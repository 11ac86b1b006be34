"""How a task moves between states, and when it is tried again."""

import pytest

from s3edge.rules.lifecycle import (
    HEARTBEAT_S,
    LEASE_S,
    MAX_PREDICT_TRIES,
    has_ended,
    retry_delay_s,
)
from s3edge.values import TaskStatus


@pytest.mark.parametrize(
    ("status", "ended"),
    [
        (TaskStatus.PENDING, False),
        (TaskStatus.PROCESSING, False),
        (TaskStatus.DONE, True),
        (TaskStatus.ERROR, True),
    ],
)
def test_done_and_error_are_final(status: TaskStatus, ended: bool) -> None:
    """A task whose worker died has not ended; ``done`` and ``error`` are final."""
    assert has_ended(status) is ended


def test_delays_double_up_to_a_cap() -> None:
    """Each failure waits up to twice as long as the one before, but never for long."""
    longest = [retry_delay_s(attempt, 1.0) for attempt in range(1, 9)]

    assert longest == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]


def test_the_delay_is_jittered_over_its_whole_range() -> None:
    """Clients that failed together do not come back together."""
    assert retry_delay_s(3, 0.0) == 0.0
    assert retry_delay_s(3, 0.5) == 1.0


def test_a_late_attempt_does_not_overflow() -> None:
    """However often something failed, the delay stays at its cap."""
    assert retry_delay_s(10**9, 1.0) == 20.0


def test_the_backend_is_asked_for_a_quarter_of_a_minute_at_the_most() -> None:
    """All the delays between attempts together stay short of what a user would wait for."""
    assert sum(retry_delay_s(attempt, 1.0) for attempt in range(1, MAX_PREDICT_TRIES)) < 16


def test_two_lost_heartbeats_do_not_lose_a_task() -> None:
    """A lease outlives two heartbeats."""
    assert 2 * HEARTBEAT_S < LEASE_S


def test_a_server_may_say_when_to_come_back() -> None:
    """It is not asked sooner, nor later than the cap."""
    assert retry_delay_s(1, 0.0, 3) == 3.0
    assert retry_delay_s(6, 1.0, 3) == 16.0
    assert retry_delay_s(1, 0.0, 3600) == 20.0
