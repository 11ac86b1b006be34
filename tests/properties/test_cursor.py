"""Cursors round-trip, and no text breaks them."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from s3edge.errors import Code, EdgeError
from s3edge.rules.paging import MAX_PAGE, Cursor, decode_cursor, encode_cursor
from s3edge.values import Position


CURSORS = st.builds(
    Cursor,
    position=st.builds(
        Position,
        created_at=st.datetimes(
            min_value=datetime(1970, 1, 1),  # noqa: DTZ001 - the zone is the strategy's
            max_value=datetime(4253, 1, 1),  # noqa: DTZ001 - likewise
            timezones=st.just(UTC),
        ),
        id=st.uuids(),
    ),
    page=st.integers(2, MAX_PAGE + 1),
    total=st.integers(0, 2**32 - 1),
)


@given(CURSORS)
def test_a_cursor_is_read_as_it_was_written(cursor: Cursor) -> None:
    """Whatever the position, page and total, nothing is lost."""
    assert decode_cursor(encode_cursor(cursor)) == cursor


@given(CURSORS, CURSORS)
def test_different_cursors_have_different_texts(first: Cursor, second: Cursor) -> None:
    """No two places in a list are taken for one another."""
    assert (encode_cursor(first) == encode_cursor(second)) == (first == second)


@given(
    st.one_of(
        st.text(st.characters(), max_size=80),
        st.text("ABCDQRabf0189-_=", min_size=40, max_size=48),
        st.from_regex(r"A[Q-Za-f][A-Za-z0-9_-]{41}", fullmatch=True),
        st.builds(
            lambda cursor, at, character: (
                encode_cursor(cursor)[:at] + character + encode_cursor(cursor)[at + 1 :]
            ),
            CURSORS,
            st.integers(0, 43),
            st.characters(),
        ),
    )
)
def test_any_text_is_a_place_or_a_bad_request(text: str) -> None:
    """A text is read as a cursor that can be written again, or refused; it never breaks anything."""
    cursor: Cursor | None = None
    code: Code | None = None
    try:
        cursor = decode_cursor(text)
    except EdgeError as error:
        code = error.code

    assert (cursor is None) == (code is Code.INVALID_REQUEST)
    assert cursor is None or decode_cursor(encode_cursor(cursor)) == cursor
