r"""
How a task moves between states, and when it is tried again.

    pending --start--> processing --complete--> done
       \__________________\________fail/overdue--> error (refunded, once)
"""

from s3edge.values import TaskStatus


LEASE_S = 15.0
"""How long a task stays with whoever holds it, in seconds, unless they say that they still do."""

HEARTBEAT_S = LEASE_S / 3
"""How often a holder says so: two heartbeats may be lost before the task is offered to others."""

RECOVERY_INTERVAL_S = 5.0
"""How often a gateway looks for tasks that nobody holds and for overdue ones."""

MAX_PREDICT_TRIES = 6
"""
How often a retryable failure of the backend is tried in all: about 8 seconds, 16 at the most, and longer
when the backend says when to come back, or has a task wait for a server.
"""

MAX_RECORD_TRIES = 5
"""How often writing an outcome is tried before the task is left to recovery."""

COUNTED_BACKLOG = 100_000
"""How far a backlog is counted; what is beyond any sensible bound need not be counted out."""

OVERDUE_MESSAGE = "The segmentation was not answered in time; its credits were returned."
"""What a user reads of a task that was settled by its deadline."""

_FIRST_DELAY_S = 0.5
_MAX_DELAY_S = 20.0


def has_ended(status: TaskStatus) -> bool:
    """Return whether a state is final."""
    return status in (TaskStatus.DONE, TaskStatus.ERROR)


def retry_delay_s(tries: int, fraction: float, retry_after_s: int | None = None) -> float:
    """
    Return how long to wait after a failed try: capped exponential backoff with full jitter.

    Args:
        tries: How many failed, 1 or more.
        fraction: A random number from 0 to 1.
        retry_after_s: When it makes sense to come back, if that was said; counts up to the same cap.
    """
    backoff_s = fraction * min(_MAX_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(tries - 1, 16))
    return max(backoff_s, min(_MAX_DELAY_S, retry_after_s or 0))
