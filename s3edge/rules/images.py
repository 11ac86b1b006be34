"""
Which images are accepted: type, size and pixels, decided from the first bytes.

Only the header is read, never the pixels: decoding a hostile image is the GPU server's business,
behind its own limits. So a file that is cut short behind its header is accepted here and refused,
with a refund, by the model's server.
"""

import io
import warnings

from attrs import frozen
from PIL import Image, UnidentifiedImageError

from s3edge.errors import Code, EdgeError, invalid


MAX_IMAGE_BYTES = 10 * 1024 * 1024
"""Contract: at most 10 MiB of file."""

MAX_IMAGE_PIXELS = 50_000_000
"""Contract: at most 50 megapixels."""

MAX_HEADER_BYTES = 1024 * 1024
"""How far into a file its dimensions may stand: cameras put profiles and thumbnails first."""

SNIFF_BYTES = 12
"""Enough of a file to tell its type."""

_PILLOW_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}

CONTENT_TYPES = tuple(_PILLOW_FORMATS)
"""The media types that are accepted."""


@frozen
class ImageHeader:
    """
    What an image's first bytes say of it.

    Attributes:
        content_type: By its magic bytes.
        width: In pixels.
        height: In pixels.
    """

    content_type: str
    width: int
    height: int


def sniff(first_bytes: bytes) -> str | None:
    """
    Return the media type that a file's magic bytes name, or ``None``.

    The signatures are those of the PNG specification (section 5.2), JPEG's SOI and first marker, and
    the WebP container specification.
    """
    if first_bytes.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if first_bytes.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if first_bytes[:4] == b"RIFF" and first_bytes[8:12] == b"WEBP":
        return "image/webp"
    return None


def check_type(first_bytes: bytes, declared: str) -> str:
    """
    Return the media type of a file that starts so and was declared so.

    Raises:
        EdgeError: ``INVALID_REQUEST`` when the type is not accepted or the two disagree.
    """
    if declared not in CONTENT_TYPES:
        raise invalid("file", f"Send one of {', '.join(CONTENT_TYPES)}; got {_shown(declared)}.")
    actual = sniff(first_bytes)
    if actual is None:
        raise invalid(
            "file", f"The file is declared as {declared} but is not an image of that type."
        )
    if actual != declared:
        raise invalid("file", f"The file is declared as {declared} but its content is {actual}.")
    return actual


def read_header(prefix: bytes, content_type: str, *, complete: bool) -> ImageHeader | None:
    """
    Read an image's dimensions from its first bytes.

    Args:
        prefix: The file's beginning.
        content_type: What ``check_type`` returned for it.
        complete: Whether the prefix is the whole file.

    Returns:
        The header, or ``None`` when more bytes are needed.

    Raises:
        EdgeError: ``INVALID_REQUEST`` when the header cannot be read or names too many pixels.
    """
    try:
        width, height = _size_of(prefix, content_type)
    except Image.DecompressionBombError:
        raise _too_many_pixels() from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError):
        # Pillow says the same of a header that is cut short and of one that is broken.
        if complete or len(prefix) >= MAX_HEADER_BYTES:
            raise invalid(
                "file", "The image's header cannot be read; the file is damaged."
            ) from None
        return None
    if width < 1 or height < 1:
        raise invalid("file", "The image has no pixels.")
    if width * height > MAX_IMAGE_PIXELS:
        raise _too_many_pixels()
    return ImageHeader(content_type, width, height)


def _size_of(prefix: bytes, content_type: str) -> tuple[int, int]:
    """Return width and height; raise ``ValueError`` and whatever Pillow does when they are not there."""
    if content_type == "image/webp":
        return _webp_size(prefix)
    with warnings.catch_warnings():
        # Ours is the lower limit for pixels; what else Pillow remarks on a hostile header helps nobody.
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(prefix), formats=[_PILLOW_FORMATS[content_type]]) as image:
            return image.size


def _webp_size(prefix: bytes) -> tuple[int, int]:
    """
    Return a WebP's width and height, which Pillow reads from whole files only.

    Layout: RFC 9649, sections 2.5 to 2.7 and 3.4; RFC 6386, section 9.1.
    """
    kind, body = prefix[12:16], prefix[20:]
    if kind == b"VP8 ":
        is_key_frame = body[:1] and not body[0] & 1
        if is_key_frame and body[3:6] == b"\x9d\x01\x2a":
            return _number(body, 6, 2) & 0x3FFF, _number(body, 8, 2) & 0x3FFF
    elif kind == b"VP8L" and body[:1] == b"\x2f":
        bits = _number(body, 1, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8X":
        return _number(body, 4, 3) + 1, _number(body, 7, 3) + 1
    raise ValueError(kind)


def _number(body: bytes, at: int, size: int) -> int:
    digits = body[at : at + size]
    if len(digits) < size:
        raise EOFError
    return int.from_bytes(digits, "little")


def too_large() -> EdgeError:
    """Return the refusal of a file over the limit."""
    return EdgeError(
        Code.FILE_TOO_LARGE,
        f"The file is larger than {MAX_IMAGE_BYTES // (1024 * 1024)} MiB"
        f" ({MAX_IMAGE_BYTES:,} bytes); send a smaller one.",
    )


def _too_many_pixels() -> EdgeError:
    return invalid(
        "file",
        f"The image has more than {MAX_IMAGE_PIXELS // 1_000_000} megapixels; scale it down.",
    )


def _shown(text: str) -> str:
    limit = 60
    return repr(text if len(text) <= limit else text[:limit] + "…")
