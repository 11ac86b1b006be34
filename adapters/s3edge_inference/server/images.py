"""
Where an image may come from, and what is refused before anything is decoded.

What stands in the deployment's own storage is read with the server's own keys, and only when it is an
upload of the user who is named. Everything else is somebody else's address, so:

- its host must be one that the operator allowed, in so many letters;
- no redirect is followed, since that is an address which nobody allowed;
- the socket goes to a public address (``s3edge_aiohttp.destinations``), unless the host is one of those
  that may be private;
- it is given up as soon as it is too long, too slow, or no image by its first bytes.

A host that is down or answers 5xx may be tried again; everything else is refused for good, so that the
task ends with its refund and no bad address is asked five times.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from types import TracebackType
from typing import Self
from uuid import UUID

import anyio

from s3edge.errors import Code, EdgeError, unavailable
from s3edge.ports import ObjectStorage
from s3edge.rules.image_hosts import host_of
from s3edge.rules.images import (
    MAX_HEADER_BYTES,
    MAX_IMAGE_BYTES,
    SNIFF_BYTES,
    read_header,
    sniff,
)
from s3edge.rules.keys import is_upload_of, upload_prefix
from s3edge_aiohttp import (
    AnswerStream,
    ForbiddenAddressError,
    HttpClient,
    LateAnswerError,
    NoAnswerError,
)
from s3edge_inference.server.metrics import Metrics
from s3edge_inference.server.options import IDLE_TIMEOUT_S, MAX_DOWNLOADS, ServerOptions


_HOST = "the image's host"

_log = logging.getLogger(__name__)

_BUSY = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


class Images:
    """
    Reads images; an asynchronous context manager that holds the connections.

    Args:
        storage: The deployment's own.
        options: Say which other hosts there are, and how long they may take.
        metrics: Are told how long it took.
    """

    def __init__(self, storage: ObjectStorage, options: ServerOptions, metrics: Metrics) -> None:
        self._storage = storage
        self._options = options
        self._metrics = metrics
        # Apart, so that slow hosts of some users' choice keep nobody from the storage.
        self._storage_places = anyio.CapacityLimiter(MAX_DOWNLOADS)
        self._host_places = anyio.CapacityLimiter(MAX_DOWNLOADS)
        self._public = HttpClient(_HOST, connections=MAX_DOWNLOADS, public_only=True)
        self._private = HttpClient(_HOST, connections=MAX_DOWNLOADS)

    async def __aenter__(self) -> Self:
        """Open the pools of connections."""
        await self._public.__aenter__()
        await self._private.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection."""
        await self._private.__aexit__(kind, error, trace)
        await self._public.__aexit__(kind, error, trace)

    async def read(self, image_url: str, user_id: UUID) -> bytes:
        """
        Return a whole image file whose header is within the limits.

        Raises:
            EdgeError: ``INVALID_REQUEST`` when it is not to be had or no image, ``SERVICE_UNAVAILABLE``
                when it may be later.
        """
        key = self._storage.key_of(image_url)
        async with self._place(self._host_places if key is None else self._storage_places):
            with self._metrics.timed("download"):
                image = await (
                    self._download(image_url, user_id)
                    if key is None
                    else self._upload(key, user_id)
                )
        with self._metrics.timed("check"):
            _check(image)
        return image

    @asynccontextmanager
    async def _place(self, places: anyio.CapacityLimiter) -> AsyncIterator[None]:
        """Hold one of the places; who waits for it as long as an image may take goes elsewhere."""
        try:
            with anyio.fail_after(self._options.image_timeout_s):
                await places.acquire()
        except TimeoutError:
            raise unavailable(
                "Too many images are being read; try again.", retry_after_s=1
            ) from None
        try:
            yield
        finally:
            places.release()

    async def _upload(self, key: str, user_id: UUID) -> bytes:
        """Return what the user uploaded."""
        if not is_upload_of(user_id, key):
            raise _refusal("The image is not one of this user's uploads.")
        try:
            with anyio.fail_after(self._options.image_timeout_s):
                return await _whole(self._storage.open(key))
        except TimeoutError:
            raise unavailable("The storage is too slow; try again.", retry_after_s=1) from None
        except EdgeError as error:
            if error.code is Code.NOT_FOUND:
                raise _refusal("The image is gone.") from None
            raise

    async def _download(self, image_url: str, user_id: UUID) -> bytes:
        """Return what stands at an address of somebody else's."""
        client = self._client_of(image_url, user_id)
        try:
            with anyio.fail_after(self._options.image_timeout_s):
                async with client.stream("GET", image_url, timeout_s=IDLE_TIMEOUT_S) as answer:
                    _check_answer(answer)
                    return await _whole(answer.chunks)
        except ForbiddenAddressError:
            raise _refusal("The image's host has no public address.") from None
        except (TimeoutError, LateAnswerError):
            raise _refusal("The image's host is too slow.") from None
        except NoAnswerError:
            raise unavailable("The image's host gives no answer.", retry_after_s=1) from None

    def _client_of(self, image_url: str, user_id: UUID) -> HttpClient:
        host = host_of(image_url)
        if host in self._options.private_image_hosts:
            return self._private
        if host in self._options.image_hosts:
            return self._public
        if f"/{upload_prefix(user_id)}" in image_url:
            _log.warning(
                "an image that looks like an upload is on a host that is not the storage: let"
                " R2_PUBLIC_BASE_URL and the other R2_ names be the gateway's"
            )
        raise _refusal("The image is on a host that is not allowed here.")


def _check_answer(answer: AnswerStream) -> None:
    """Refuse what is no image already by its head."""
    status = answer.status
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _BUSY:
        raise unavailable("The image's host cannot give it now; try again.", retry_after_s=1)
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        raise _refusal("The image's address leads to another one, and redirects are not followed.")
    if status != HTTPStatus.OK:
        raise _refusal(f"The image's host does not give it: status {status}.")
    length = answer.headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_IMAGE_BYTES:
        raise _too_large()


async def _whole(chunks: AsyncIterator[bytes]) -> bytes:
    content = bytearray()
    async for chunk in chunks:
        content += chunk
        if len(content) > MAX_IMAGE_BYTES:
            raise _too_large()
        if len(content) >= SNIFF_BYTES and sniff(bytes(content[:SNIFF_BYTES])) is None:
            raise _no_image()
    return bytes(content)


def _check(image: bytes) -> None:
    """Refuse what its header says cannot be decoded; no pixel is looked at."""
    content_type = sniff(image[:SNIFF_BYTES])
    if content_type is None:
        raise _no_image()
    try:
        # As far as a gateway looks, and no further: what begins behind it is refused there, too.
        read_header(image[:MAX_HEADER_BYTES], content_type, complete=True)
    except EdgeError as error:
        # It speaks of a form's field, and there is no form here.
        raise _refusal("; ".join(detail.message for detail in error.details)) from None


def _no_image() -> EdgeError:
    return _refusal("The file is not a PNG, JPEG or WebP image.")


def _too_large() -> EdgeError:
    return _refusal(f"The image is larger than {MAX_IMAGE_BYTES // (1024 * 1024)} MiB.")


def _refusal(message: str) -> EdgeError:
    return EdgeError(Code.INVALID_REQUEST, message)
