"""
The access key that signs; one that is lent for a time (a role's) is renewed behind the requests.

botocore renews in the thread that asks for a key, holds all others that ask meanwhile, and takes its
time: five tries of a minute each of a security token service that says nothing. So nobody but one
thread asks it. Whoever signs takes the last key that it got.
"""

import asyncio
import logging
import time
from concurrent.futures import Future
from threading import Thread

import anyio
from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials

from s3edge_aiohttp import NoAnswerError


KEY_WAIT_S = 1.0
"""How long a request waits for the renewal of a key that has run out."""

RENEWAL_REST_S = 5.0
"""How long after a renewal no other is begun; matters when it failed."""

LATE_S = 60.0
"""After how long a renewal that has not ended is said to be late; botocore's own limits are shorter."""

_log = logging.getLogger(__name__)

# It writes what whoever lends keys said when it failed, which may be a secret. We say that it failed.
logging.getLogger("botocore.credentials").setLevel(logging.CRITICAL)


class NoKeyError(NoAnswerError):
    """There is no key that is good now, so the store was not asked."""

    def __init__(self) -> None:
        super().__init__("the storage's access key has run out", may_have_acted=False)


class AccessKeys:
    """
    Has the key at hand, and has a lent one renewed from 15 minutes before its end on.

    For one thread, that of the event loop.

    Args:
        credentials: Fixed, or from botocore's own chain.
        rest_s: Between a renewal and the next.
    """

    def __init__(self, credentials: Credentials, *, rest_s: float = RENEWAL_REST_S) -> None:
        self._credentials = credentials
        self._rest_s = rest_s
        self._renewal: Future[None] | None = None
        self._rests_until = 0.0
        self._last = _at_hand(credentials)
        self._asked_at = 0.0
        self._is_late = False

    def current(self) -> ReadOnlyCredentials:
        """
        Return the key at once; when it ends soon, have it renewed.

        Raises:
            NoKeyError: It has run out.
        """
        self._begin_renewal()
        if self._last is None or self._ends_within(0):
            raise NoKeyError
        return self._last

    async def ready(self, limit_s: float = KEY_WAIT_S) -> ReadOnlyCredentials:
        """
        Return the key; wait for its renewal only when it has run out.

        Args:
            limit_s: How long to wait; the renewal goes on without whoever gave up.

        Raises:
            NoKeyError: It has run out, and was not renewed in time.
        """
        try:
            return self.current()
        except NoKeyError:
            if self._renewal is not None:
                with anyio.move_on_after(limit_s):
                    await asyncio.wrap_future(self._renewal)
        return self.current()

    def _ends_within(self, seconds: int | None) -> bool:
        """Return whether a lent key ends within so many seconds; ``None`` are botocore's 15 minutes."""
        lent = self._credentials
        return isinstance(lent, RefreshableCredentials) and lent.refresh_needed(seconds)

    def _begin_renewal(self) -> None:
        """Begin a renewal if it is time; there is one at once, and it is nobody's in particular."""
        now = time.monotonic()
        if self._renewal is not None and not self._renewal.done():
            if now - self._asked_at >= LATE_S and not self._is_late:
                self._is_late = True
                _log.warning(
                    "the access key was asked for %d s ago, and whoever lends it says nothing; restart"
                    " this process once that is fixed",
                    LATE_S,
                )
            return
        if not self._ends_within(None) or now < self._rests_until:
            return
        renewal: Future[None] = Future()
        # It cannot be cancelled any more, by whoever waits and gives up.
        renewal.set_running_or_notify_cancel()
        # anyio's worker threads are joined at the end of the process, whatever was abandoned.
        thread = Thread(target=self._renew, args=(renewal,), name="s3edge-access-key", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            _log.warning("the access key cannot be renewed: %s", error)
        else:
            self._renewal = renewal
            self._asked_at = now
            self._is_late = False

    def _renew(self, renewal: Future[None]) -> None:
        try:
            self._last = self._credentials.get_frozen_credentials()
        except Exception as error:  # noqa: BLE001 - whoever lends raises what it likes
            # Its text may hold a secret: a process that lends keys is quoted there.
            _log.warning("the access key could not be renewed: %s", type(error).__name__)
        finally:
            self._rests_until = time.monotonic() + self._rest_s
            renewal.set_result(None)


def _at_hand(credentials: Credentials) -> ReadOnlyCredentials | None:
    """Return the key that is known without asking anybody; a role's first one is not."""
    if isinstance(credentials, RefreshableCredentials):
        # Whatever is public renews it first when it ends soon, and it is good until then.
        known: ReadOnlyCredentials | None = getattr(credentials, "_frozen_credentials", None)
        return known
    return credentials.get_frozen_credentials()
