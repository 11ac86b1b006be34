"""How a place in the list of results is written down for the client."""

import base64
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from s3edge.errors import Code, EdgeError
from s3edge.rules.paging import (
    CURSOR_PATTERN,
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


def packed(first: int = 1, rest: bytes = bytes(31)) -> str:
    """Return a text made like a cursor, of any bytes."""
    return base64.urlsafe_b64encode(bytes([first]) + rest).rstrip(b"=").decode()


def test_a_cursor_is_read_as_it_was_written() -> None:
    """Time to the microsecond, id, page and total survive."""
    assert decode_cursor(TEXT) == CURSOR


def test_a_cursor_fits_a_query_string() -> None:
    """A cursor is short and needs no escaping."""
    assert len(TEXT) < 64
    assert TEXT.replace("-", "").replace("_", "").isalnum()


def test_a_time_of_another_zone_is_the_same_moment() -> None:
    """The moment is what counts, not how its zone is written."""
    local = CURSOR.position.created_at.astimezone(tz=None)
    moved = Cursor(Position(local, CURSOR.position.id), CURSOR.page, CURSOR.total)

    assert encode_cursor(moved) == TEXT


GARBAGE = [
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
    TEXT + "=",
    TEXT[:-1] + "+",
    TEXT[:-1] + "/",
    TEXT[:-1] + "é",
    "A" * 43,
    "A" * 44,
    "A" * 100_000,
    base64.urlsafe_b64encode(b'{"id": 1}').decode(),
    str(CURSOR.position.id),
    packed(first=0),
    packed(first=2),
    packed(first=255),
    packed(rest=bytes(30)),
    packed(rest=bytes(32)),
]


@pytest.mark.parametrize("text", GARBAGE)
def test_what_was_not_made_here_is_refused(text: str) -> None:
    """Garbage of every kind is the client's fault, never ours."""
    with pytest.raises(EdgeError) as refused:
        decode_cursor(text)
    assert refused.value.code is Code.INVALID_REQUEST
    assert [detail.field for detail in refused.value.details] == ["cursor"]


@pytest.mark.parametrize("text", [TEXT, packed(), packed(rest=b"\xff" * 31), *GARBAGE])
def test_the_published_pattern_says_the_same(text: str) -> None:
    """The OpenAPI document's pattern accepts a text if and only if it can be read."""
    try:
        decode_cursor(text)
    except EdgeError:
        is_read = False
    else:
        is_read = True

    assert bool(re.search(CURSOR_PATTERN.replace("$", r"\Z"), text)) == is_read


@pytest.mark.parametrize(
    "created_at",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
        datetime(4253, 1, 1, tzinfo=UTC),
    ],
)
@pytest.mark.parametrize("page", [2, MAX_PAGE, MAX_PAGE + 1])
def test_far_times_and_pages_can_be_written_down(created_at: datetime, page: int) -> None:
    """Two thousand years and every page that can be asked for have cursors."""
    cursor = Cursor(Position(created_at, CURSOR.position.id), page, 0)

    assert decode_cursor(encode_cursor(cursor)) == cursor


def test_a_total_beyond_counting_does_not_break_the_walk() -> None:
    """More rows than fit into the cursor's number are shown as very many."""
    many = Cursor(CURSOR.position, page=2, total=2**40)

    read = decode_cursor(encode_cursor(many))

    assert read.position == CURSOR.position
    assert read.total >= 2**32 - 1


def test_positions_a_microsecond_apart_are_told_apart() -> None:
    """Rows that were made in quick succession have cursors of their own."""
    later = CURSOR.position.created_at + timedelta(microseconds=1)
    moved = Cursor(Position(later, CURSOR.position.id), CURSOR.page, CURSOR.total)

    assert encode_cursor(moved) != TEXT
