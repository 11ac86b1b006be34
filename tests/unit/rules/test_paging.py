"""How a place in the list of results is written down for the client."""

import base64
import contextlib
import struct
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from s3edge.errors import Code, EdgeError
from s3edge.rules.paging import (
    MAX_CURSOR_CHARACTERS,
    MAX_PAGE,
    Cursor,
    decode_cursor,
    encode_cursor,
)
from s3edge.values import Position


CURSOR = Cursor(
    Position(
        datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        UUID("1a9e0000-0000-4000-8000-000000000003"),
    ),
    page=2,
    total=41,
)
TEXT = encode_cursor(CURSOR)


def packed(
    version: int = 1, page: int = 2, total: int = 1, microseconds: int = 0, size: int = 37
) -> str:
    """Return a text made like a cursor, of any numbers."""
    content = struct.pack(">BIqq16s", version, page, total, microseconds, bytes(16))
    return base64.urlsafe_b64encode(content[:size]).rstrip(b"=").decode()


def test_a_cursor_is_read_as_it_was_written() -> None:
    """Time to the microsecond, id, page and total survive."""
    assert decode_cursor(TEXT) == CURSOR


def test_a_cursor_fits_a_query_string() -> None:
    """A cursor is short and needs no escaping."""
    assert len(TEXT) <= MAX_CURSOR_CHARACTERS
    assert TEXT.replace("-", "").replace("_", "").isalnum()


def test_a_time_of_another_zone_is_the_same_moment() -> None:
    """The moment is what counts, not how its zone is written."""
    local = CURSOR.position.created_at.astimezone(tz=None)
    moved = Cursor(Position(local, CURSOR.position.id), CURSOR.page, CURSOR.total)

    assert encode_cursor(moved) == TEXT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        "!",
        "é",
        "\ud800",
        "\x00",
        " " + TEXT,
        TEXT + "\n",
        TEXT[:-1],
        TEXT + "A",
        TEXT + "==",
        "A" * MAX_CURSOR_CHARACTERS,
        "A" * 100_000,
        base64.urlsafe_b64encode(b'{"id": 1}').decode(),
        str(CURSOR.position.id),
        packed(version=0),
        packed(version=2),
        packed(page=0),
        packed(page=1),
        packed(page=MAX_PAGE + 2),
        packed(page=2**32 - 1),
        packed(total=-1),
        packed(microseconds=2**63 - 1),
        packed(microseconds=-(2**63)),
        packed(size=36),
    ],
)
def test_what_was_not_made_here_is_refused(text: str) -> None:
    """Garbage of every kind is the client's fault, never ours."""
    with pytest.raises(EdgeError) as refused:
        decode_cursor(text)
    assert refused.value.code is Code.INVALID_REQUEST
    assert [detail.field for detail in refused.value.details] == ["cursor"]


def test_only_one_text_means_a_cursor() -> None:
    """Another Base64 spelling of the same bytes was not made here."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    readable = {}
    for last in alphabet:
        with contextlib.suppress(EdgeError):
            readable[last] = decode_cursor(TEXT[:-1] + last)

    assert readable[TEXT[-1]] == CURSOR
    assert len(readable) == len(set(readable.values()))


@pytest.mark.parametrize(
    "created_at",
    [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)],
)
def test_every_time_can_be_written_down(created_at: datetime) -> None:
    """The first and the last moment of the calendar are positions like any other."""
    cursor = Cursor(Position(created_at, CURSOR.position.id), MAX_PAGE + 1, 0)

    assert decode_cursor(encode_cursor(cursor)) == cursor


def test_positions_a_microsecond_apart_are_told_apart() -> None:
    """Rows that were made in quick succession have cursors of their own."""
    later = CURSOR.position.created_at + timedelta(microseconds=1)
    moved = Cursor(Position(later, CURSOR.position.id), CURSOR.page, CURSOR.total)

    assert encode_cursor(moved) != TEXT
