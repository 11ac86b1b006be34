"""How a backend that runs beside the gateway reads images and keeps masks."""

from collections.abc import AsyncIterator

from s3edge.errors import Code, EdgeError
from s3edge.ports import ObjectStorage


MASK_TYPE = "image/png"


async def read_image(image_url: str, *, storage: ObjectStorage) -> bytes:
    """
    Return the bytes of an image in this deployment's own storage.

    Raises:
        EdgeError: ``INVALID_REQUEST`` when the image is not there, ``SERVICE_UNAVAILABLE``.
    """
    key = storage.key_of(image_url)
    if key is None:
        raise EdgeError(Code.INVALID_REQUEST, "The image is not in this deployment's storage.")
    try:
        return b"".join([chunk async for chunk in storage.open(key)])
    except EdgeError as error:
        if error.code is Code.NOT_FOUND:
            raise EdgeError(Code.INVALID_REQUEST, "The image is gone.") from None
        raise


async def store_mask(mask_png: bytes, key: str, *, storage: ObjectStorage) -> str:
    """
    Store a mask and return its URL; a repeat keeps the first.

    Raises:
        EdgeError: ``SERVICE_UNAVAILABLE``.
    """
    await storage.put(key, _whole(mask_png), content_type=MASK_TYPE, size_bytes=len(mask_png))
    return storage.url_for(key)


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content
