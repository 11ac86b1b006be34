"""A network that drops, delays, repeats and halves what it carries, for tests of clients."""

import random
from collections.abc import Sequence
from enum import StrEnum

import httpx
from attrs import define, field

from s3edge.testing.clock import ManualClock


class Fault(StrEnum):
    """What happens to a request or its answer."""

    NONE = "none"
    DROP_BEFORE = "drop before"
    """The request never arrives."""
    DROP_AFTER = "drop after"
    """The request is served, and its answer is lost."""
    LATE = "late"
    """The client gives up, and the request arrives behind its own repeat."""
    DELAY = "delay"
    """The answer takes a while."""
    DUPLICATE = "duplicate"
    """The request arrives twice; the second answer is the one that is heard."""
    RATE_LIMITED = "429"
    """Something before the server refuses it, and says when to come back."""
    UNAVAILABLE = "503"
    """Something before the server answers with a page of its own."""
    HALF = "half a body"
    """The request is served, and its answer ends in the middle."""


ALL_FAULTS = tuple(Fault)


@define
class Faults:
    """
    Which fault is next, by chance that can be repeated.

    Attributes:
        seed: Of the choices.
        time: What delays take.
        rate: How often anything goes wrong, from 0 to 1.
        kinds: What can go wrong.
        counts: How often each fault happened.
    """

    seed: int
    time: ManualClock
    rate: float = 0.5
    kinds: Sequence[Fault] = ALL_FAULTS
    counts: dict[Fault, int] = field(factory=dict)
    _random: random.Random = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin."""
        self._random = random.Random(self.seed)  # noqa: S311 - repeatable on purpose

    def draw(self) -> Fault:
        """Return what happens to the next request."""
        goes_wrong = self._random.random() < self.rate
        fault = self._random.choice(self.kinds) if goes_wrong else Fault.NONE
        self.counts[fault] = self.counts.get(fault, 0) + 1
        return fault

    def seconds(self) -> float:
        """Return how long a delay is."""
        return self._random.uniform(0, 20)


class FaultyTransport(httpx.BaseTransport):
    """
    Carries requests to another transport, as ``faults`` has it.

    Args:
        inner: Where requests arrive, if they do.
        faults: What goes wrong.
    """

    def __init__(self, inner: httpx.BaseTransport, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults
        self._late: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Implement httpx's transport."""
        sent = _copy(request, request.read())
        fault = self._faults.draw()
        _before(fault, self._faults, sent, self._late)
        refused = _refusal(fault)
        if refused is not None:
            return refused
        answer = self._deliver(sent)
        if fault is Fault.DUPLICATE:
            answer = self._deliver(sent)
        self.deliver_late()
        return _after(fault, answer)

    def deliver_late(self) -> None:
        """Deliver what was held back."""
        while self._late:
            self._deliver(self._late.pop())

    def _deliver(self, request: httpx.Request) -> httpx.Response:
        answer = self._inner.handle_request(_copy(request, request.content))
        answer.read()
        return answer


class AsyncFaultyTransport(httpx.AsyncBaseTransport):
    """
    Carries requests to another transport, as ``faults`` has it.

    Args:
        inner: Where requests arrive, if they do.
        faults: What goes wrong.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults
        self._late: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Implement httpx's transport."""
        sent = _copy(request, await request.aread())
        fault = self._faults.draw()
        _before(fault, self._faults, sent, self._late)
        refused = _refusal(fault)
        if refused is not None:
            return refused
        answer = await self._deliver(sent)
        if fault is Fault.DUPLICATE:
            answer = await self._deliver(sent)
        await self.deliver_late()
        return _after(fault, answer)

    async def deliver_late(self) -> None:
        """Deliver what was held back."""
        while self._late:
            await self._deliver(self._late.pop())

    async def _deliver(self, request: httpx.Request) -> httpx.Response:
        answer = await self._inner.handle_async_request(_copy(request, request.content))
        await answer.aread()
        return answer


def _copy(request: httpx.Request, content: bytes) -> httpx.Request:
    return httpx.Request(request.method, request.url, headers=request.headers, content=content)


def _before(
    fault: Fault, faults: Faults, request: httpx.Request, late: list[httpx.Request]
) -> None:
    match fault:
        case Fault.DROP_BEFORE:
            message = "nobody there"
            raise httpx.ConnectError(message)
        case Fault.LATE:
            late.append(request)
            faults.time.advance(faults.seconds())
            message = "no answer"
            raise httpx.ReadTimeout(message)
        case Fault.DELAY:
            faults.time.advance(faults.seconds())
        case _:
            pass


def _refusal(fault: Fault) -> httpx.Response | None:
    match fault:
        case Fault.RATE_LIMITED:
            return httpx.Response(429, headers={"Retry-After": "3"}, text="slow down")
        case Fault.UNAVAILABLE:
            return httpx.Response(503, html="<h1>503 Service Unavailable</h1>")
        case _:
            return None


def _after(fault: Fault, answer: httpx.Response) -> httpx.Response:
    match fault:
        case Fault.DROP_AFTER:
            message = "the connection broke"
            raise httpx.ReadError(message)
        case Fault.HALF:
            content = answer.content[: len(answer.content) // 2]
        case _:
            content = answer.content
    headers = {k: v for k, v in answer.headers.items() if k != "content-length"}
    return httpx.Response(answer.status_code, headers=headers, content=content)
