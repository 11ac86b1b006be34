"""How a place in the list of results is written down for the client: as an opaque cursor."""

import base64
import re
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

CURSOR_PATTERN = r"^A[Q-Za-f][A-Za-z0-9_-]{40}[AEIMQUYcgkosw048]$"
"""Exactly the texts that ``decode_cursor`` takes: base64url of 32 bytes, the first of them 1."""

_VERSION = 1
# Version, page, total, the three parts of the microseconds since the epoch, id. Seven bytes of
# microseconds reach the year 4253, so every value of every field means something.
_LAYOUT = struct.Struct(">BIIBHI16s")
_MAX_UINT32 = 2**32 - 1
_MAX_MICROSECONDS = 2**56 - 1

_CURSOR = re.compile(CURSOR_PATTERN.removesuffix("$"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
    since_epoch = (cursor.position.created_at - _EPOCH) // timedelta(microseconds=1)
    microseconds = min(max(0, since_epoch), _MAX_MICROSECONDS)
    packed = _LAYOUT.pack(
        _VERSION,
        min(cursor.page, _MAX_UINT32),
        min(cursor.total, _MAX_UINT32),
        microseconds >> 48,
        microseconds >> 32 & 0xFFFF,
        microseconds & _MAX_UINT32,
        cursor.position.id.bytes,
    )
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode("ascii")


def decode_cursor(text: str) -> Cursor:
    """
    Return the cursor of a text.

    It is not signed: it only says where to go on in the user's own list.

    Raises:
        EdgeError: ``INVALID_REQUEST`` for a text of another form than ``encode_cursor`` writes.
    """
    if not _CURSOR.fullmatch(text):
        raise invalid("cursor", "Use the next_cursor of an earlier answer, unchanged.")
    _, page, total, high, middle, low, id_bytes = _LAYOUT.unpack(
        base64.urlsafe_b64decode(text + "=")
    )
    created_at = _EPOCH + timedelta(microseconds=high << 48 | middle << 32 | low)
    return Cursor(Position(created_at, UUID(bytes=id_bytes)), page, total)
