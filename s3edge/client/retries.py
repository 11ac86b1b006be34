"""Which failed attempts are made again, and after how long: no clock and no chance of its own."""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from s3edge.client.errors import S3EdgeError


RETRIED_STATUSES = frozenset({408, 429, 502, 503, 504})
"""Answers that a repeat may change. A 500 is not among them: the same request meets the same fault."""

REPEATABLE_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
"""Idempotent by RFC 9110, section 9.2.2; a POST is only with an idempotency key."""

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0
"""The bounds of the back-off, which doubles."""


def may_repeat(error: S3EdgeError, method: str, idempotency_key: str | None) -> bool:
    """Return whether a call that failed so may be sent again."""
    return error.retryable and (method in REPEATABLE_METHODS or idempotency_key is not None)


def pause_s(error: S3EdgeError, attempt: int, random: Callable[[], float]) -> float:
    """
    Return how many seconds to wait before the next attempt.

    Full jitter: anything between nothing and a bound that doubles from 0.5 to 8 seconds, so that clients
    who failed together do not return together. What the server asked for is waited for in any case.

    Args:
        error: Why the attempt failed.
        attempt: How many attempts failed before it.
        random: Returns a number from 0 to 1.
    """
    if error.retry_after is not None:
        return error.retry_after + random() * FIRST_PAUSE_S
    return random() * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**attempt)


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """
    Return a ``Retry-After`` header in seconds, or ``None`` where it says nothing.

    RFC 9110, section 10.2.3: either whole seconds or an HTTP date.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        return max(0.0, (at - now).total_seconds())
    except (ValueError, OverflowError):
        return None
