"""Signed requests, repeated while that may help and the user can wait."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import Protocol, TypeVar

import anyio

from s3edge_aiohttp import Answer, AnswerStream, HttpClient, NoAnswerError
from s3edge_s3.access_keys import KEY_WAIT_S
from s3edge_s3.addresses import BucketAddress
from s3edge_s3.answers import with_honest_status
from s3edge_s3.signing import EMPTY_SHA256_HASH, Signer


REQUEST_TIMEOUT_S = 3.0
"""How long an answer may take; for a long body, how long nothing may move."""

BUDGET_S = 3.5
"""How long all tries together may go without progress."""

MAX_TRIES = 4

_FIRST_DELAY_S = 0.2
_LEAST_TIMEOUT_S = 0.2

TRANSIENT = frozenset(
    {
        # S3's answer to conditional writes of one key that meet; the same request then wins or loses.
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
        HTTPStatus.CONFLICT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.SERVICE_UNAVAILABLE,
    }
)


class _HasStatus(Protocol):
    @property
    def status(self) -> int: ...


A = TypeVar("A", bound=_HasStatus)


class BucketRequests:
    """
    Makes requests about one bucket's objects.

    Args:
        client: Moves the bytes.
        signer: Signs.
        address: Where the bucket is.
        random: Returns a number from 0 to 1; spreads the tries of many clients.
        timeout_s: For one try.
        budget_s: For all tries of a request, not counting the time in which bytes moved.
    """

    def __init__(
        self,
        client: HttpClient,
        signer: Signer,
        address: BucketAddress,
        *,
        random: Callable[[], float],
        timeout_s: float = REQUEST_TIMEOUT_S,
        budget_s: float = BUDGET_S,
    ) -> None:
        self._client = client
        self._signer = signer
        self._address = address
        self._random = random
        self._timeout_s = timeout_s
        self._budget_s = budget_s

    async def send(
        self,
        method: str,
        key: str,
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        body_sha256: str = EMPTY_SHA256_HASH,
        budget_s: float | None = None,
    ) -> Answer:
        """
        Make a request that does no harm when it is made twice, and return its last answer.

        Args:
            method: Of HTTP.
            key: Of the object.
            query: Encoded, with its ``?``.
            headers: To sign and send.
            body: To send.
            body_sha256: Of the body, in hex.
            budget_s: In place of the usual.

        Raises:
            NoAnswerError: No try got an answer in time; ``NoKeyError`` when none could be signed.
        """
        url = self._address.object_url(key) + query

        async def once(timeout_s: float) -> Answer:
            signed = self._signer.headers(method, url, headers or {}, body_sha256)
            if method in ("PUT", "POST"):
                signed["Content-Length"] = str(len(body))
            answer = await self._client.fetch(
                method, url, timeout_s=timeout_s, headers=signed, body=body or None
            )
            return with_honest_status(answer)

        return await self._tried(once, self._budget_s if budget_s is None else budget_s)

    @asynccontextmanager
    async def stream(self, key: str) -> AsyncIterator[AnswerStream]:
        """
        Ask for an object's bytes and yield the answer while they come.

        Raises:
            NoAnswerError: As ``send``; also while reading.
        """
        url = self._address.object_url(key)
        async with AsyncExitStack() as stack:

            async def once(timeout_s: float) -> AnswerStream:
                signed = self._signer.headers("GET", url, {}, EMPTY_SHA256_HASH)
                return await stack.enter_async_context(
                    self._client.stream("GET", url, timeout_s=timeout_s, headers=signed)
                )

            yield await self._tried(once, self._budget_s)

    async def _tried(self, once: Callable[[float], Awaitable[A]], budget_s: float) -> A:
        began = anyio.current_time()
        await self._signer.ready(min(KEY_WAIT_S, budget_s - _LEAST_TIMEOUT_S))
        idle_s = anyio.current_time() - began
        for tries in range(1, MAX_TRIES + 1):
            timeout_s = min(self._timeout_s, budget_s - idle_s)
            started = anyio.current_time()
            outcome = await _outcome(once(timeout_s))
            if not isinstance(outcome, NoAnswerError) and outcome.status not in TRANSIENT:
                return outcome
            delay_s = _FIRST_DELAY_S * 2 ** (tries - 1) * (0.5 + self._random() / 2)
            # What took longer than its timeout was moving bytes meanwhile.
            idle_s += min(anyio.current_time() - started, timeout_s) + delay_s
            if tries == MAX_TRIES or budget_s - idle_s < _LEAST_TIMEOUT_S:
                if isinstance(outcome, NoAnswerError):
                    raise outcome
                return outcome
            await anyio.sleep(delay_s)
        raise AssertionError("the last try returns or raises")  # pragma: no cover


async def _outcome(answer: Awaitable[A]) -> A | NoAnswerError:
    try:
        return await answer
    except NoAnswerError as error:
        return error
