"""Users who never give up, and somebody who kills the servers under them, for tests of what survives."""

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4

import anyio
import httpx
from attrs import define, field, frozen

from s3edge.testing.server import ServerProcess


TIMEOUT_S = 15.0
"""How long a user waits for an answer before sending the request again."""

PAUSE_S = 0.2
"""How long a user waits before that."""

REPEATED = 0.05
"""The share of accepted requests that are sent once more, as a client does that lost the answer."""

ACCEPTED = 202


@frozen
class Customer:
    """
    A user who wants tasks done.

    Attributes:
        user_id: Who it is.
        token: Signs them in.
        image_id: What they uploaded.
    """

    user_id: UUID
    token: str
    image_id: str


@define
class Orders:
    """
    What users asked for, and what they were told.

    Attributes:
        accepted: The task's id by user and idempotency key.
        sent: How many requests it took.
        contradictions: Keys that were answered with two different tasks.
    """

    accepted: dict[tuple[UUID, str], UUID] = field(factory=dict)
    sent: int = 0
    contradictions: list[str] = field(factory=list)

    def accept(self, customer: Customer, key: str, task_id: UUID) -> None:
        """Remember an answer."""
        known = self.accepted.setdefault((customer.user_id, key), task_id)
        if known != task_id:
            self.contradictions.append(key)


class Killer:
    """
    Kills a process about every so many seconds, and starts it again; a context manager.

    Args:
        processes: Whom to choose from; each is up when this begins and when it has ended.
        every_s: How long to wait between two kills, in seconds.
        seed: Of the choices.

    Attributes:
        kills: How many there were.
    """

    def __init__(self, processes: Sequence[ServerProcess], every_s: float, seed: int = 0) -> None:
        self.kills = 0
        self._processes = processes
        self._every_s = every_s
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="killer")
        self._starting: list[threading.Thread] = []

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, with everything up again."""
        self._stop.set()
        self._thread.join()
        for thread in self._starting:
            thread.join()

    def _work(self) -> None:
        down: set[int] = set()
        while not self._stop.wait(self._every_s):
            up = [n for n in range(len(self._processes)) if n not in down]
            # One is left alone, so that there is always somebody to start with.
            if len(up) < 2:
                continue
            number = self._random.choice(up)
            down.add(number)
            self._processes[number].kill()
            self.kills += 1
            starting = threading.Thread(target=self._start, args=(number, down))
            starting.start()
            self._starting.append(starting)

    def _start(self, number: int, down: set[int]) -> None:
        self._processes[number].start()
        down.discard(number)


async def order(
    customers: Sequence[Customer],
    urls: Callable[[], Sequence[str]],
    *,
    each: int,
    for_s: float = 0.0,
    at_once: int = 2,
    seed: int = 0,
) -> Orders:
    """
    Have every user submit tasks, each under a key of its own, and resend it until it is accepted.

    Args:
        customers: The users.
        urls: Returns where gateways are now; each request goes to any of them.
        each: How many tasks each user wants, at the least.
        for_s: How long they go on wanting more, in seconds.
        at_once: How many requests each has under way.
        seed: Of the choices.
    """
    orders, choices = Orders(), random.Random(seed)  # noqa: S311 - repeatable on purpose
    ends_at = time.monotonic() + for_s
    async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:

        async def submit(customer: Customer, wanted: int) -> None:
            while wanted > 0 or time.monotonic() < ends_at:
                wanted, key, task_id = wanted - 1, str(uuid4()), None
                while task_id is None:
                    orders.sent += 1
                    task_id = await _submit(client, choices.choice(urls()), customer, key)
                orders.accept(customer, key, task_id)
                if choices.random() < REPEATED:
                    repeated = await _submit(client, choices.choice(urls()), customer, key)
                    if repeated is not None:
                        orders.accept(customer, key, repeated)

        async with anyio.create_task_group() as group:
            for customer in customers:
                for number in range(at_once):
                    group.start_soon(submit, customer, len(range(number, each, at_once)))
    return orders


async def _submit(client: httpx.AsyncClient, url: str, customer: Customer, key: str) -> UUID | None:
    """Send a request; return the task that was accepted, or ``None`` for whatever went wrong."""
    try:
        answer = await client.post(
            f"{url}/api/v1/segment",
            headers={"Authorization": f"Bearer {customer.token}", "Idempotency-Key": key},
            json={"image_id": customer.image_id, "text_prompt": "what is bright"},
        )
    except httpx.HTTPError:
        await anyio.sleep(PAUSE_S)
        return None
    if answer.status_code != ACCEPTED:
        _check_is_passing(answer)
        await anyio.sleep(PAUSE_S)
        return None
    body: Mapping[str, Mapping[str, str]] = answer.json()
    return UUID(body["data"]["task_id"])


def _check_is_passing(answer: httpx.Response) -> None:
    """Fail for an answer that repeating does not help."""
    if answer.status_code not in (429, 500, 502, 503, 504):
        message = f"{answer.status_code}: {answer.text[:300]}"
        raise AssertionError(message)
