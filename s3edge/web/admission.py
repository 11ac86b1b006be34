"""
Bounds what one process serves at a time: what is beyond it is refused before it costs anything.

A queue in front of a server that is full makes everybody wait, and ends in time-outs all the same; a
refusal that says when to come back costs microseconds. Long polls are asleep nearly all their time, so
they stand aside, within a bound of their own, and take no place from those who have work to be done.
One user's uploads have a bound besides, or a few who send slowly would hold the places of all.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from s3edge.errors import Code, EdgeError, unavailable
from s3edge.ports import Clock
from s3edge.web.log_interval import LogInterval


RETRY_AFTER_S = 1
"""When a refused request may come back: places are free again within milliseconds."""

_log = logging.getLogger(__name__)


class Admission:
    """
    The places of one process. All calls are made on one event loop.

    Args:
        max_requests: How many requests are served at once.
        max_waits: How many long polls wait at once, besides.
        clock: Tells when to warn.
    """

    def __init__(self, max_requests: int, max_waits: int, clock: Clock) -> None:
        self._max_requests = max_requests
        self._max_waits = max_waits
        self._clock = clock
        self._serving = 0
        self._waiting = 0
        self._of_users: Counter[UUID] = Counter()
        self._refused = 0
        self._log_interval = LogInterval()

    @property
    def serving(self) -> int:
        """How many requests have a place."""
        return self._serving

    @property
    def waiting(self) -> int:
        """How many long polls stand aside."""
        return self._waiting

    def limit_waits(self, most: int) -> None:
        """Let no more long polls wait than so many."""
        self._max_waits = min(self._max_waits, most)

    @contextmanager
    def place(self) -> Iterator["Place"]:
        """Hold a place, should one be taken, until the context ends."""
        place = Place(self)
        try:
            yield place
        finally:
            place.leave()

    def enter(self) -> None:
        """Take a place; raise ``SERVICE_UNAVAILABLE`` when there is none."""
        if self._serving >= self._max_requests:
            raise self._refusal("The server is at capacity; try again.")
        self._serving += 1
        self._tell_now_and_then()

    def leave(self) -> None:
        """Give a place back."""
        self._serving -= 1

    def enter_for(self, user_id: UUID, most: int) -> None:
        """Count one more request of a user; raise ``RATE_LIMITED`` when it is one too many."""
        if self._of_users[user_id] >= most:
            raise EdgeError(
                Code.RATE_LIMITED,
                f"{most} of your uploads and segmentations are under way here; try again when one"
                " has ended.",
                retryable=True,
                retry_after_s=RETRY_AFTER_S,
            )
        self._of_users[user_id] += 1

    def leave_for(self, user_id: UUID) -> None:
        """Count one less."""
        self._of_users[user_id] -= 1
        if not self._of_users[user_id]:
            del self._of_users[user_id]

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Count a long poll while it waits; raise ``SERVICE_UNAVAILABLE`` when too many wait."""
        if self._waiting >= self._max_waits:
            raise self._refusal("Too many long polls are open here; ask again without 'wait'.")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def resume(self) -> None:
        """Take a place again after a wait, also when there is none: what is begun is finished."""
        self._serving += 1

    def _refusal(self, message: str) -> EdgeError:
        self._refused += 1
        self._tell_now_and_then()
        return unavailable(message, retry_after_s=RETRY_AFTER_S)

    def _tell_now_and_then(self) -> None:
        """Log what was refused, once a minute at most: who is short of time must not write much."""
        if not self._refused:
            return
        if self._log_interval.is_over(self._clock.now().timestamp()):
            _log.warning(
                "requests beyond the bounds were refused: %d since the last such line;"
                " now %d are served and %d wait",
                self._refused,
                self._serving,
                self._waiting,
            )
            self._refused = 0


class Place:
    """One request's place; made by ``Admission.place``, and not taken yet."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._is_taken = False
        self._user_id: UUID | None = None

    def take(self) -> None:
        """
        Begin to count.

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE`` when the process serves all that it may.
        """
        self._admission.enter()
        self._is_taken = True

    def take_for(self, user_id: UUID, most: int) -> None:
        """
        Count for a user besides, until the place is left for good.

        Raises:
            EdgeError: ``RATE_LIMITED`` when the user has so many under way already.
        """
        self._admission.enter_for(user_id, most)
        self._user_id = user_id

    def leave(self) -> None:
        """Count no longer."""
        self._vacate()
        if self._user_id is not None:
            self._admission.leave_for(self._user_id)
            self._user_id = None

    def _vacate(self) -> None:
        if self._is_taken:
            self._is_taken = False
            self._admission.leave()

    @contextmanager
    def stand_aside(self) -> Iterator[None]:
        """
        Leave the place to others while this request only waits.

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE`` when too many wait already.
        """
        with self._admission.aside():
            was_taken = self._is_taken
            self._vacate()
            try:
                yield
            finally:
                if was_taken:
                    self._admission.resume()
                    self._is_taken = True
