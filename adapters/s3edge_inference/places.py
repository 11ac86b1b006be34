"""Places at GPU servers, for requests that wait a while when all servers rest."""

import math
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import anyio

from s3edge.errors import unavailable
from s3edge_inference.servers import PATIENCE_S, Lease, ServerPool, State, Verdict


PLACE_TIMEOUT_S = 10.0
"""
How long a request waits while all servers rest: three rests, so that a task does not use up its tries on
servers that are not even asked. Never more than half of the time that the caller gives, because the
rest is for the answer.
"""

Answers = Callable[[int], Awaitable[tuple[Verdict, bool]]]
"""Asks a server a small question; returns what that says of it, and whether the answer was a good one."""


class Places:
    """
    Hands out places at servers, and has them wait for who is without one.

    Args:
        servers: How many there are.
        now: Tells the time in seconds.
        timeout_s: How long a request waits while all servers rest.
    """

    def __init__(self, servers: int, *, now: Callable[[], float], timeout_s: float) -> None:
        self._pool = ServerPool(servers)
        self._now = now
        self._timeout_s = timeout_s
        # Set when a place was given back, so that those who wait for one look again.
        self._given_back = anyio.Event()

    async def take(self, user: UUID, answers: Answers) -> Lease:
        """
        Return a place at a server; one that was rested must answer a small question first.

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE``, when all servers go on resting.
        """
        now = anyio.current_time()
        waits_until = now + min(self._timeout_s, (anyio.current_effective_deadline() - now) / 2)
        while True:
            lease = self._pool.take(user, self._now())
            if lease is None:
                await self._wait(waits_until)
            elif not lease.is_trial or await self._may_be_tried(lease, answers):
                return lease

    def give_back(self, lease: Lease, verdict: Verdict) -> None:
        """Return a place, with what the request said of the server."""
        self._pool.give_back(lease, verdict, self._now())
        self._given_back.set()
        self._given_back = anyio.Event()

    def states(self) -> Sequence[State]:
        """Return how each server stands."""
        return self._pool.states(self._now())

    async def _wait(self, until: float) -> None:
        """Return when it is worth while to look again."""
        rest_s = self._pool.wait_s(self._now())
        left_s = until - anyio.current_time()
        if left_s <= 0:
            raise unavailable(
                "No GPU server can be used now; try again.", retry_after_s=max(1, math.ceil(rest_s))
            )
        # Without a rest to wait for, somebody tries a server, and keeps the others out no longer.
        with anyio.move_on_after(min(left_s, rest_s or PATIENCE_S)):
            await self._given_back.wait()

    async def _may_be_tried(self, lease: Lease, answers: Answers) -> bool:
        """Tell whether the trial can be sent; if not, the place was given back."""
        verdict, is_good = Verdict.UNKNOWN, False
        try:
            verdict, is_good = await answers(lease.server)
            if is_good:
                self._pool.admit(lease, self._now())
        finally:
            if not is_good:
                self.give_back(lease, verdict)
        return is_good
