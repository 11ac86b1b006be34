"""The ``ObjectStorage`` port on a bucket."""

import random as standard_random
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from types import TracebackType
from typing import Self

from s3edge.errors import Code, EdgeError
from s3edge.ports import Clock, Finding, Ids
from s3edge.rules.keys import is_key
from s3edge.values import StoredObject
from s3edge_aiohttp import Answer, AnswerStream, HttpClient, NoAnswerError
from s3edge_s3.access_keys import AccessKeys, NoKeyError
from s3edge_s3.addresses import BucketAddress
from s3edge_s3.answers import MAX_DOCUMENT_BYTES, is_absence
from s3edge_s3.examination import Examination
from s3edge_s3.faults import Faults, SettingNames
from s3edge_s3.leftovers import Leftovers
from s3edge_s3.objects import BucketObjects
from s3edge_s3.presigned import PresignedUrls
from s3edge_s3.requests import BUDGET_S, REQUEST_TIMEOUT_S, BucketRequests
from s3edge_s3.signing import Signer
from s3edge_s3.writing import ObjectWriter


_ABSENT_KEY = "check/absent"


class S3ObjectStorage:
    """
    Keeps objects in a bucket; an asynchronous context manager that holds the connections.

    Args:
        address: Where the bucket is.
        keys: Sign.
        names: Of the settings, for messages.
        clock: Tells when a signed URL is made anew.
        ids: Name puts and the examination's object.
        random: Returns a number from 0 to 1; spreads retries.
        timeout_s: For one request; for a long body, how long nothing may move.
        budget_s: For all tries of a request, not counting the time in which bytes moved.
    """

    def __init__(
        self,
        address: BucketAddress,
        keys: AccessKeys,
        *,
        names: SettingNames,
        clock: Clock,
        ids: Ids,
        random: Callable[[], float] = standard_random.random,
        timeout_s: float = REQUEST_TIMEOUT_S,
        budget_s: float = BUDGET_S,
    ) -> None:
        signer = Signer(keys, address.region)
        self._address = address
        self._signer = signer
        self._ids = ids
        self._faults = Faults(names)
        self._client = HttpClient("the storage")
        self._presigned = PresignedUrls(signer, clock)
        self._requests = BucketRequests(
            self._client, signer, address, random=random, timeout_s=timeout_s, budget_s=budget_s
        )
        self._objects = BucketObjects(self._requests, self._faults)
        self._leftovers = Leftovers()
        self._writer = ObjectWriter(self._requests, self._faults, self._leftovers)

    async def __aenter__(self) -> Self:
        """Open the pool of connections; none is made yet. A key that must be lent first is asked for."""
        # What is asked of the storage, readiness first, says that there is none.
        with suppress(NoKeyError):
            await self._signer.ready()
        await self._client.__aenter__()
        await self._leftovers.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection."""
        try:
            await self._leftovers.__aexit__(kind, error, trace)
        finally:
            await self._client.__aexit__(kind, error, trace)

    async def put(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str,
        size_bytes: int | None = None,  # noqa: ARG002 - where the stream ends is what counts
    ) -> StoredObject:
        """Implement ``ObjectStorage``; holds about two parts (10 MiB) of the stream at the most."""
        if not is_key(key):
            raise EdgeError(Code.INTERNAL_ERROR, f"{key!r} is not a key.")
        with self._outages():
            return await self._writer.write(
                key, chunks, content_type=content_type, mark=self._ids.new().hex
            )

    def url_for(self, key: str) -> str:
        """
        Implement ``ObjectStorage``: the public URL where there is one, else a signed one.

        A key that was lent and has run out signs nothing: its URLs would be refused.
        """
        with self._outages():
            return self._url(key)

    def key_of(self, url: str) -> str | None:
        """Implement ``ObjectStorage``; knows the bucket's URLs whoever signed them, and public ones."""
        return self._address.key_of(url)

    async def head(self, key: str) -> StoredObject | None:
        """Implement ``ObjectStorage``."""
        if not is_key(key):
            return None
        with self._outages():
            found = await self._objects.head(key)
        return None if found is None else StoredObject(key, found.size_bytes, found.content_type)

    async def open(self, key: str) -> AsyncIterator[bytes]:
        """Implement ``ObjectStorage``; an object that breaks off is ``SERVICE_UNAVAILABLE``."""
        if not is_key(key):
            raise _no_such_object()
        try:
            async with self._requests.stream(key) as answer:
                if answer.status != HTTPStatus.OK:
                    raise self._not_opened(await _whole(answer))
                async for chunk in answer.chunks:
                    yield chunk
        except NoAnswerError as error:
            raise self._faults.outage(error) from None

    async def delete(self, key: str) -> None:
        """Implement ``ObjectStorage``."""
        if is_key(key):
            with self._outages():
                await self._objects.delete(key)

    async def check(self) -> None:
        """Implement ``Checked``: ask for an object that is not there, which every key may."""
        with self._outages():
            answer = await self._requests.send("GET", _ABSENT_KEY)
        if not is_absence(answer):
            raise self._faults.refusal(answer)

    def examine(self) -> AsyncIterator[Finding]:
        """Implement ``Examinable``: put, read and delete a small object, and read it by its URL."""
        examination = Examination(self._requests, self._client, self._faults, self._url)
        return examination.findings(f"doctor/{self._ids.new()}")

    def _url(self, key: str) -> str:
        public = self._address.public_url(key)
        return public or self._presigned.sign(self._address.object_url(key))

    @contextmanager
    def _outages(self) -> Iterator[None]:
        try:
            yield
        except NoAnswerError as error:
            raise self._faults.outage(error) from None

    def _not_opened(self, answer: Answer) -> EdgeError:
        return _no_such_object() if is_absence(answer) else self._faults.refusal(answer)


def _no_such_object() -> EdgeError:
    return EdgeError(Code.NOT_FOUND, "There is no such object.")


async def _whole(answer: AnswerStream) -> Answer:
    body = bytearray()
    async for chunk in answer.chunks:
        body += chunk
        if len(body) >= MAX_DOCUMENT_BYTES:
            break
    return Answer(answer.status, answer.headers, bytes(body))
