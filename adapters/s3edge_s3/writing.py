"""
Puts that are all or nothing, and of which the first wins.

The last request of a put is the one that makes the object appear. It says ``If-None-Match: *``, so it
may be made again when its answer was lost: 412 then means that something is there, ours or another's,
and either is the answer. Each put marks its object, so that what is taken back is never another's.
https://developers.cloudflare.com/r2/api/s3/extensions/
"""

import logging
from collections.abc import AsyncIterable, Awaitable, Callable
from functools import partial
from http import HTTPStatus

import anyio
from attrs import frozen

from s3edge.errors import EdgeError
from s3edge.values import StoredObject
from s3edge_aiohttp import Answer, NoAnswerError
from s3edge_s3.answers import MARK_HEADER, etag, tells_md5
from s3edge_s3.faults import Faults
from s3edge_s3.finishing import finished
from s3edge_s3.leftovers import Leftovers
from s3edge_s3.multipart import MultipartUpload
from s3edge_s3.objects import BucketObjects
from s3edge_s3.parts import PART_BYTES, Part, PartCutter
from s3edge_s3.requests import TRANSIENT, BucketRequests


SETTLE_S = 0.5
"""How long to ask what became of a put after its answer was lost."""

CLEAN_UP_S = 1.5
"""How long to undo what was begun."""

CLEAN_UP_AFTER_OUTAGE_S = 0.6
"""The same when the store went silent and a user still waits."""

_USED_ONCE = "uploads/"
"""How keys begin that nobody puts a second time."""

_log = logging.getLogger(__name__)


@frozen
class _NewObject:
    """
    What is about to be stored.

    Attributes:
        key: Its name.
        content_type: Its media type.
        mark: Names this put.
    """

    key: str
    content_type: str
    mark: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": self.content_type, MARK_HEADER: self.mark}


@frozen
class _Last:
    """
    The request that makes an object appear.

    Attributes:
        send: Makes it.
        size_bytes: How long the object must be.
        etag: What its ETag must be, where ETags are made of MD5 hashes.
    """

    send: Callable[[], Awaitable[Answer]]
    size_bytes: int
    etag: str


class ObjectWriter:
    """
    Writes streams into a bucket.

    Args:
        requests: To the bucket.
        faults: Makes the errors.
        leftovers: Undoes what cannot be undone at once.
    """

    def __init__(self, requests: BucketRequests, faults: Faults, leftovers: Leftovers) -> None:
        self._requests = requests
        self._faults = faults
        self._leftovers = leftovers
        self._objects = BucketObjects(requests, faults)

    async def write(
        self, key: str, chunks: AsyncIterable[bytes], *, content_type: str, mark: str
    ) -> StoredObject:
        """
        Store a stream under a key and return what is there; on any failure leave nothing.

        Args:
            key: Where.
            chunks: The bytes; what it raises comes out.
            content_type: Their media type.
            mark: Names this put; no other has it.

        Raises:
            NoAnswerError: As ``BucketRequests.send``.
            EdgeError: ``SERVICE_UNAVAILABLE``.
        """
        new = _NewObject(key, content_type, mark)
        cutter = PartCutter(chunks)
        await cutter.advance()
        if cutter.part.is_last:
            return await self._write_whole(new, cutter.part)
        return await self._write_parts(new, cutter)

    async def _write_whole(self, new: _NewObject, part: Part) -> StoredObject:
        async def send() -> Answer:
            return await self._requests.send(
                "PUT",
                new.key,
                headers=new.headers | {"If-None-Match": "*"},
                body=part.body,
                body_sha256=part.sha256,
            )

        return await self._commit(new, _Last(send, len(part.body), part.md5.hex()))

    async def _write_parts(self, new: _NewObject, cutter: PartCutter) -> StoredObject:
        upload = MultipartUpload(self._requests, self._faults, new.key)
        limit_s = CLEAN_UP_S
        try:
            await upload.create(new.headers)
            size_bytes = 0
            # No part is kept in a variable: it would stay in memory while the next one is cut.
            while not cutter.part.is_last:
                await upload.add(cutter.part)
                size_bytes += PART_BYTES
                await cutter.advance()
            await upload.add(cutter.part)
            size_bytes += len(cutter.part.body)
            return await self._commit(new, _Last(upload.complete, size_bytes, upload.expected_etag))
        except NoAnswerError:
            limit_s = CLEAN_UP_AFTER_OUTAGE_S
            raise
        finally:
            # Also when another put was first.
            if upload.is_open and not await _is_undone(upload.abort, limit_s):
                self._leftovers.add(upload.abort)

    async def _commit(self, new: _NewObject, last: _Last) -> StoredObject:
        """Make an object appear and return what is under its key; when cancelled, take it back."""
        try:
            return await self._outcome(new, last)
        except anyio.get_cancelled_exc_class():
            await self._take_back(new)
            raise
        except NoAnswerError:
            self._look_again(new)
            raise

    async def _outcome(self, new: _NewObject, last: _Last) -> StoredObject:
        try:
            answer = await finished(last.send)
        except NoAnswerError:
            stored = await self._settled(new)
            if stored is None:
                raise
            return stored
        if answer.status == HTTPStatus.OK:
            return await self._verified(new, last, answer)
        if answer.status == HTTPStatus.PRECONDITION_FAILED:
            stored = await self._found(new)
        elif answer.status in TRANSIENT or answer.status == HTTPStatus.NOT_FOUND:
            # Not found is the upload whose completion was not answered.
            stored = await self._settled(new)
        else:
            stored = None
        if stored is not None:
            return stored
        if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            self._look_again(new)
        raise self._faults.refusal(answer)

    async def _verified(self, new: _NewObject, last: _Last, answer: Answer) -> StoredObject:
        """Return the new object if the store has it, byte for byte as far as it can tell."""
        is_stored = etag(answer) == last.etag
        if not is_stored and not tells_md5(answer):
            found = await self._objects.head(new.key)
            is_stored = found is not None and (found.mark, found.size_bytes) == (
                new.mark,
                last.size_bytes,
            )
        if not is_stored:
            await self._take_back(new)
            raise self._faults.nonsense("the storage has other bytes than were sent")
        return StoredObject(new.key, last.size_bytes, new.content_type)

    async def _settled(self, new: _NewObject) -> StoredObject | None:
        """Return what is under the key after all, if that can be told quickly."""
        try:
            return await self._found(new, budget_s=SETTLE_S)
        except (NoAnswerError, EdgeError):
            return None

    async def _found(
        self, new: _NewObject, *, budget_s: float | None = None
    ) -> StoredObject | None:
        found = await self._objects.head(new.key, budget_s=budget_s)
        return (
            None if found is None else StoredObject(new.key, found.size_bytes, found.content_type)
        )

    async def _take_back(self, new: _NewObject) -> None:
        """Remove the new object if it is there; if it is not, it may still be coming."""
        was_there = False

        async def remove() -> None:
            nonlocal was_there
            was_there = await self._objects.delete_marked(new.key, new.mark)

        await _is_undone(remove, CLEAN_UP_S)
        if not was_there:
            self._look_again(new)

    def _look_again(self, new: _NewObject) -> None:
        """Have an object removed that appears when its put has failed already."""
        # Another key may be put again: then what appeared late is what that put returned.
        if new.key.startswith(_USED_ONCE):
            self._leftovers.add(partial(self._objects.delete_marked, new.key, new.mark))


async def _is_undone(call: Callable[[], Awaitable[None]], limit_s: float) -> bool:
    """Make a call that removes something; what failed before it matters more than its own failure."""
    with anyio.move_on_after(limit_s, shield=True):
        try:
            await call()
        except (NoAnswerError, EdgeError) as error:
            _log.warning("what a failed put left was not removed: %s", error)
        except Exception:  # noqa: BLE001 - logged with its trace; ``Leftovers`` tries again
            _log.exception("what a failed put left was not removed")
        else:
            return True
    return False
