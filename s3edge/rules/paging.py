"""How a place in the list of results is written down for the client: as an opaque cursor."""

import base64
import binascii
import struct
from datetime import UTC, datetime, timedelta
from uuid import UUID

from attrs import frozen

from s3edge.errors import invalid
from s3edge.values import Position


DEFAULT_LIMIT = 20
MAX_LIMIT = 100
MAX_PAGE = 1_000_000_000
"""Keeps every offset within 64 bits."""

MAX_CURSOR_CHARACTERS = 64

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Version, page, total, microseconds since the epoch, id: 37 bytes.
_LAYOUT = struct.Struct(">BIqq16s")
_VERSION = 1


@frozen
class Cursor:
    """
    Where a walk through the results goes on.

    Attributes:
        position: The last row that was read.
        page: The number of the page that follows.
        total: Counted when the walk began, so that going on need not count again.
    """

    position: Position
    page: int
    total: int


def encode_cursor(cursor: Cursor) -> str:
    """Return the text of a cursor."""
    microseconds = (cursor.position.created_at - _EPOCH) // timedelta(microseconds=1)
    packed = _LAYOUT.pack(
        _VERSION, cursor.page, cursor.total, microseconds, cursor.position.id.bytes
    )
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode("ascii")


def decode_cursor(text: str) -> Cursor:
    """
    Return the cursor of a text.

    Raises:
        EdgeError: ``INVALID_REQUEST`` for a text that ``encode_cursor`` did not make.
    """
    try:
        if len(text) > MAX_CURSOR_CHARACTERS:
            raise _not_ours()
        packed = base64.b64decode(
            text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True
        )
        version, page, total, microseconds, id_bytes = _LAYOUT.unpack(packed)
        created_at = _EPOCH + timedelta(microseconds=microseconds)
    except (ValueError, binascii.Error, struct.error, OverflowError):
        raise _not_ours() from None
    if version != _VERSION or not 1 < page <= MAX_PAGE + 1 or total < 0:
        raise _not_ours()
    cursor = Cursor(Position(created_at, UUID(bytes=id_bytes)), page, total)
    # Base64 has several texts for the same bytes; ours is the one without padding.
    if encode_cursor(cursor) != text:
        raise _not_ours()
    return cursor


def _not_ours() -> Exception:
    return invalid("cursor", "Use the next_cursor of an earlier answer, unchanged.")
