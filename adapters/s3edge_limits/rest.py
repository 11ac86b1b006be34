r"""
When a store that failed is asked again.

    well --a failure--> resting --REST_S--> due --one trial--> well
                           ^                         |
                           \_______ it fails _______/

Requests do not wait one after the other for a store that hangs: while it rests, and while a single
request tries it, all others are told at once that it is down.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from s3edge.errors import EdgeError, unavailable


REST_S = 1.0
"""Short, so that limits are applied again a moment after the store has come back."""


class Rest:
    """
    Keeps requests from a store that failed.

    Args:
        now: Tells the time in seconds, of a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._failure = ""
        self._until: float | None = None
        self._is_tried = False

    @contextmanager
    def request(self) -> Iterator[None]:
        """
        Hold one request to the store, which raises ``EdgeError`` when the store is of no use.

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE`` with the failure's message: the store is not to be asked.
        """
        is_trial = self._until is not None
        if self._until is not None and (self._is_tried or self._now() < self._until):
            raise unavailable(self._failure)
        if is_trial:
            self._is_tried = True
        try:
            yield
        except EdgeError as error:
            if not error.retryable:
                raise  # it answered, and what it said is about this subject alone
            self._failure = error.message
            self._until = self._now() + REST_S
            raise
        else:
            # Whoever was answered proves it, a request from before the failure too.
            self._until = None
        finally:
            # Also of a trial that was given up: the next request is another one.
            if is_trial:
                self._is_tried = False
