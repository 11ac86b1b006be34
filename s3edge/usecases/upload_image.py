"""Take an image into storage."""

from collections.abc import AsyncIterable, AsyncIterator
from uuid import UUID

from attrs import frozen

from s3edge.errors import invalid
from s3edge.ports import Ids, ObjectStorage
from s3edge.rules.images import (
    MAX_HEADER_BYTES,
    MAX_IMAGE_BYTES,
    SNIFF_BYTES,
    ImageHeader,
    check_type,
    read_header,
    too_large,
)
from s3edge.rules.keys import upload_key
from s3edge.values import User


@frozen
class UploadedImage:
    """
    An image that is in storage.

    Attributes:
        image_id: Its id.
        image_url: Where it can be read now.
        size_bytes: Of the file.
        content_type: Of the file, as its bytes say.
        width: In pixels.
        height: In pixels.
    """

    image_id: UUID
    image_url: str
    size_bytes: int
    content_type: str
    width: int
    height: int


async def upload_image(
    user: User,
    chunks: AsyncIterable[bytes],
    declared_type: str,
    *,
    storage: ObjectStorage,
    ids: Ids,
) -> UploadedImage:
    """
    Store an image of the user's while it arrives.

    Storage takes the bytes as they come and shows the object only when the stream has ended well, so
    whatever is wrong with the request, up to its last byte, leaves nothing behind.

    Args:
        user: Whose image it is.
        chunks: The file's bytes; raises when the request turns out to be bad.
        declared_type: The media type that the client names.
        storage: Where it goes.
        ids: Makes the image's id.

    Raises:
        EdgeError: ``INVALID_REQUEST``, ``FILE_TOO_LARGE``, ``SERVICE_UNAVAILABLE``.
    """
    limited = _limited(chunks)
    header, first_bytes = await _read_header(limited, declared_type)
    image_id = ids.new()
    key = upload_key(user.user_id, image_id)
    stored = await storage.put(key, _joined(first_bytes, limited), content_type=header.content_type)
    return UploadedImage(
        image_id=image_id,
        image_url=storage.url_for(key),
        size_bytes=stored.size_bytes,
        content_type=header.content_type,
        width=header.width,
        height=header.height,
    )


async def _limited(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Pass chunks on until the file is too large."""
    size_bytes = 0
    async for chunk in chunks:
        size_bytes += len(chunk)
        if size_bytes > MAX_IMAGE_BYTES:
            raise too_large()
        yield chunk


async def _read_header(
    chunks: AsyncIterator[bytes], declared_type: str
) -> tuple[ImageHeader, bytes]:
    """Read as little as tells the image's type and dimensions."""
    first_bytes = bytearray()
    content_type: str | None = None
    # Each failed attempt to read the header doubles what the next one waits for, so that a header
    # that comes byte by byte is not parsed once a byte.
    enough = SNIFF_BYTES
    async for chunk in chunks:
        first_bytes += chunk
        if len(first_bytes) < enough:
            continue
        if content_type is None:
            content_type = check_type(bytes(first_bytes[:SNIFF_BYTES]), declared_type)
        header = read_header(bytes(first_bytes[:MAX_HEADER_BYTES]), content_type, complete=False)
        if header is not None:
            return header, bytes(first_bytes)
        enough = 2 * len(first_bytes)
    if not first_bytes:
        raise invalid("file", "The file is empty.")
    content_type = check_type(bytes(first_bytes[:SNIFF_BYTES]), declared_type)
    return read_header(bytes(first_bytes), content_type, complete=True), bytes(first_bytes)


async def _joined(first_bytes: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first_bytes
    async for chunk in rest:
        yield chunk
