"""The model of the stand-in of a GPU server, and where its masks go."""

import io
import logging
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx
from anyio import to_thread
from PIL import Image, UnidentifiedImageError

from s3edge.masks import MASK_TYPE
from s3edge.memory.backend import THRESHOLD


StoreMask = Callable[[str, bytes], Awaitable[str]]
"""Keeps a PNG under a key, and returns its URL."""

MAX_IMAGE_BYTES = 10 * 1024 * 1024

DOWNLOAD_TIMEOUT_S = 10.0
STORE_TIMEOUT_S = 3.0

_log = logging.getLogger(__name__)


class UnusableImageError(ValueError):
    """An image cannot be had or read; the text may be shown to whoever sent it."""


class ImageHostDownError(ConnectionError):
    """Where the image is, nobody answers now."""


class MaskStoreDownError(ConnectionError):
    """Where the masks go, nobody takes them now."""


async def download(client: httpx.AsyncClient, url: str) -> bytes:
    """
    Return an image's bytes, from this machine and no other.

    Raises:
        UnusableImageError: There is no such image, or it is too large or somewhere else.
        ImageHostDownError: Nobody says.
    """
    if not _is_loopback(url):
        raise UnusableImageError("The image is not on this machine.")
    content = bytearray()
    try:
        async with client.stream("GET", url, timeout=DOWNLOAD_TIMEOUT_S) as response:
            if response.is_server_error:
                raise ImageHostDownError
            if response.status_code != httpx.codes.OK:
                raise UnusableImageError("The image cannot be downloaded.")
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_IMAGE_BYTES:
                    raise UnusableImageError("The image is too large.")
    except httpx.InvalidURL:
        raise UnusableImageError("The image's address is malformed.") from None
    except httpx.HTTPError:
        raise ImageHostDownError from None
    return bytes(content)


def segment(image: bytes) -> tuple[bytes, bool]:
    """
    Return a mask (PNG) of what is brighter than half, and whether there is anything.

    Raises:
        UnusableImageError: It is no image.
    """
    try:
        with Image.open(io.BytesIO(image)) as opened:
            mask = opened.convert("L").point(lambda value: 255 if value > THRESHOLD else 0)
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        ValueError,
        SyntaxError,
    ):
        raise UnusableImageError("The image cannot be read.") from None
    encoded = io.BytesIO()
    mask.save(encoded, "PNG")
    return encoded.getvalue(), mask.getbbox() is not None


def s3_masks(
    endpoint: str,
    bucket: str,
    *,
    access_key_id: str,
    secret_access_key: str,
    region: str = "us-east-1",
    public_base_url: str | None = None,
) -> StoreMask:
    """
    Return what keeps masks in a bucket; it raises ``MaskStoreDownError`` when it cannot.

    Args:
        endpoint: Of the S3 API, without a trailing slash.
        bucket: Its name.
        access_key_id: Of a key pair that may write.
        secret_access_key: The same.
        region: Of the bucket.
        public_base_url: How masks are addressed; by default by endpoint and bucket.
    """
    # It takes a while to load, and most tests need none of it.
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    from botocore.session import Session  # noqa: PLC0415

    client: Any = Session().create_client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        region_name=region,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=STORE_TIMEOUT_S,
            read_timeout=STORE_TIMEOUT_S,
            retries={"total_max_attempts": 1},
        ),
    )
    base_url = (public_base_url or f"{endpoint}/{bucket}").rstrip("/")

    async def store(key: str, png: bytes) -> str:
        try:
            await to_thread.run_sync(
                lambda: client.put_object(Bucket=bucket, Key=key, Body=png, ContentType=MASK_TYPE)
            )
        except (BotoCoreError, ClientError) as error:
            _log.warning("a mask could not be stored: %s", error)
            raise MaskStoreDownError from None
        return f"{base_url}/{key}"

    return store


def _is_loopback(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        return parts.scheme == "http" and (host == "localhost" or ip_address(host).is_loopback)
    except ValueError:
        return False
