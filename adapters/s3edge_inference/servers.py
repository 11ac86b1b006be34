r"""
Which GPU server takes a request, and which is left alone for a while.

A state machine without input and output: the time is passed in, so that any history can be played.

    closed --3 failures in a row--> resting --3 s--> due --one trial--> closed
                                       ^                       |
                                       \________ it fails _____/

**A doubt** is a request that the server failed on, while it answers otherwise. It may be the request's
own fault, so one user's doubts, however many, do nothing to anybody else: for 3 seconds the server comes
last, or is not tried, for that user alone. Doubts of three users, with no answer between them, rest it
like three failures.

**Least busy first**, by requests in flight; among equals they take turns. A server that just failed, or
said that it is busy, comes last for 3 seconds: it answers quickly, so it would look idle and draw
every request.

**A trial** is one request, and only one at a time. It goes before the others, or a server would not
come back while another one serves. A model may take long over it, and a server that has just been
restarted longer still; so when the server is known to answer (``admit``) and the trial has been out
for a second without failing, the others may come too, on probation: the next failure rests it again.
"""

import math
from collections.abc import Sequence
from enum import Enum, auto
from uuid import UUID

from attrs import define, field


FAILURES_TO_REST = 3

USERS_TO_REST = 3
"""How many users must have doubts: nobody rests a server for others with images of their own."""

REST_S = 3.0
"""Short, so that a server that returns has all the work again within 5 seconds."""

PATIENCE_S = 1.0
"""How long a trial keeps the others out, once the server is known to answer."""


class Verdict(Enum):
    """What a request said of the server that took it."""

    WELL = auto()
    """It answered as a server does that works."""
    BUSY = auto()
    """It works, but not now: too much to do, or the model is still being loaded."""
    FAILED = auto()
    """It is of no use: down, silent, refusing us, or talking nonsense."""
    DOUBTED = auto()
    """It failed on this request, and answers otherwise."""
    UNKNOWN = auto()
    """The request was given up before anything could be told."""


class State(Enum):
    """How a server's circuit stands."""

    CLOSED = auto()
    """It takes requests."""
    RESTING = auto()
    """It is left alone."""
    DUE = auto()
    """It may be tried, or is being tried."""


@define(eq=False)
class Lease:
    """
    One request's place at a server; it is given back once.

    Attributes:
        server: The server's index.
        user: On whose behalf.
        is_trial: Whether the server is to prove that it is back.
        era: The server's, when the place was taken.
        admitted_at: Since when the server of a trial is known to answer.
    """

    server: int
    user: UUID
    is_trial: bool
    era: int
    admitted_at: float | None = field(default=None, init=False)


@define(eq=False)
class _Circuit:
    """
    What is known of one server.

    Attributes:
        in_flight: Requests that it has.
        failures: In a row.
        doubts: Since it last answered well, by user: when it is like the others again for them.
        comes_last_until: When it is like the others again for everybody.
        rests_until: Since it failed too often, until when nothing is sent; ``None`` while it is closed.
        trial: The request that tries it.
        era: Counts the rests; a request of an earlier era says nothing of the server as it is now.
    """

    in_flight: int = 0
    failures: int = 0
    doubts: dict[UUID, float] = field(factory=dict)
    comes_last_until: float = -math.inf
    rests_until: float | None = None
    trial: Lease | None = None
    era: int = 0

    def comes_last(self, user: UUID, now: float) -> bool:
        """Tell whether the others go before it."""
        return max(self.comes_last_until, self.doubts.get(user, -math.inf)) > now


class ServerPool:
    """
    Hands out places at a fixed number of servers.

    All times are seconds of one clock that never goes back.

    Args:
        servers: How many there are.
    """

    def __init__(self, servers: int) -> None:
        self._circuits = [_Circuit() for _ in range(servers)]
        self._next = 0

    def take(self, user: UUID, now: float) -> Lease | None:
        """Return a place at the server for this user's next request; ``None`` if all rest."""
        self._end_patience(now)
        index = self._due(user, now)
        if index is None:
            index = self._least_busy(user, now)
        if index is None:
            return None
        circuit = self._circuits[index]
        circuit.in_flight += 1
        lease = Lease(index, user, circuit.rests_until is not None, circuit.era)
        if lease.is_trial:
            circuit.trial = lease
        else:
            self._next = (index + 1) % len(self._circuits)
        return lease

    def admit(self, lease: Lease, now: float) -> None:
        """Say that the server of a trial answers at all, before the trial itself is sent."""
        lease.admitted_at = now

    def give_back(self, lease: Lease, verdict: Verdict, now: float) -> None:
        """Return a place, with what the request said of the server."""
        circuit = self._circuits[lease.server]
        circuit.in_flight -= 1
        if circuit.trial is lease:
            circuit.trial = None
        if verdict in (Verdict.WELL, Verdict.BUSY):
            # Whenever the request was sent, the server has just answered it.
            circuit.failures = 0
            circuit.doubts.clear()
            circuit.rests_until = None
            circuit.trial = None
            circuit.comes_last_until = now + REST_S if verdict is Verdict.BUSY else -math.inf
        elif lease.era != circuit.era:
            return
        elif verdict is Verdict.FAILED:
            circuit.failures += 1
            circuit.comes_last_until = now + REST_S
            if circuit.rests_until is not None or circuit.failures >= FAILURES_TO_REST:
                _rest(circuit, now)
        elif verdict is Verdict.DOUBTED:
            circuit.doubts[lease.user] = now + REST_S
            if len(circuit.doubts) >= USERS_TO_REST:
                _rest(circuit, now)

    def states(self, now: float) -> Sequence[State]:
        """Return how each server stands."""
        self._end_patience(now)
        return [_state(circuit, now) for circuit in self._circuits]

    def in_flight(self) -> Sequence[int]:
        """Return how many requests each server has."""
        return [circuit.in_flight for circuit in self._circuits]

    def wait_s(self, now: float) -> float:
        """Return how long it takes until a server may be tried; 0 when there is one now."""
        return max(0.0, min((c.rests_until or now) - now for c in self._circuits))

    def _due(self, user: UUID, now: float) -> int | None:
        """Return the server that has waited longest for its trial, by somebody who has no doubt of it."""
        waiting = [
            (circuit.rests_until, index)
            for index, circuit in enumerate(self._circuits)
            if circuit.rests_until is not None
            and circuit.rests_until <= now
            and circuit.trial is None
            and not circuit.comes_last(user, now)
        ]
        return min(waiting)[1] if waiting else None

    def _least_busy(self, user: UUID, now: float) -> int | None:
        count = len(self._circuits)
        closed = [
            (circuit.comes_last(user, now), circuit.in_flight, (index - self._next) % count, index)
            for index, circuit in enumerate(self._circuits)
            if circuit.rests_until is None
        ]
        return min(closed)[-1] if closed else None

    def _end_patience(self, now: float) -> None:
        for circuit in self._circuits:
            admitted_at = None if circuit.trial is None else circuit.trial.admitted_at
            if admitted_at is not None and now - admitted_at >= PATIENCE_S:
                circuit.trial = None
                circuit.rests_until = None
                circuit.failures = FAILURES_TO_REST - 1


def _rest(circuit: _Circuit, now: float) -> None:
    circuit.failures = 0
    circuit.doubts.clear()
    circuit.rests_until = now + REST_S
    circuit.trial = None
    circuit.era += 1


def _state(circuit: _Circuit, now: float) -> State:
    if circuit.rests_until is None:
        return State.CLOSED
    return State.RESTING if now < circuit.rests_until else State.DUE
