"""
Which stretch of the rows a request wants, and which it got.

https://docs.postgrest.org/en/v14/references/api/pagination_count.html
"""

import re

from attrs import frozen

from s3edge.testing.standins.supabase.query_values import Query
from s3edge.testing.standins.supabase.refusals import Refusal, bad_range


_RANGE = re.compile(r"(\d+)-(\d*)")


@frozen
class Range:
    """
    A stretch of rows.

    Attributes:
        offset: How many come before it.
        limit: How many it has at the most; ``None`` for all.
    """

    offset: int = 0
    limit: int | None = None


def wanted_range(query: Query, header: str | None) -> Range:
    """
    Return the stretch that both the query string and the ``Range`` header want.

    Raises:
        Refusal: A negative limit, a range that ends before it begins, or two that do not meet.
    """
    if query.limit is not None and query.limit < 0:
        raise _negative()
    first, last = query.offset, None
    if query.limit is not None:
        last = first + query.limit - 1
    match = None if header is None else _RANGE.fullmatch(header.removeprefix("items="))
    if match is None or query.limit == 0:
        return Range(first, query.limit)
    header_first, header_last = int(match[1]), int(match[2]) if match[2] else None
    if header_last is not None and header_last < header_first:
        raise bad_range(
            "The lower boundary must be lower than or equal to the upper boundary in the Range"
            " header."
        )
    first = max(first, header_first)
    if header_last is not None:
        last = header_last if last is None else min(last, header_last)
    if last is None:
        return Range(first)
    if last < first:
        raise _negative()
    return Range(first, last - first + 1)


def content_range(first: int, last: int, total: int | None) -> str:
    """Return the ``Content-Range`` header; ``*`` when there is no row from first to last."""
    rows = f"{first}-{last}" if first <= last and total != 0 else "*"
    return f"{rows}/{'*' if total is None else total}"


def status_of(page: Range, rows: int, total: int | None) -> int:
    """
    Return the status of a read: 200, or 206 when fewer than all are returned.

    Raises:
        Refusal: The offset lies behind the total (416).
    """
    if total is None:
        return 200
    if page.offset > total:
        raise bad_range(
            f"An offset of {page.offset} was requested, but there are only {total} rows.",
            {"Content-Range": content_range(page.offset, page.offset + rows - 1, total)},
        )
    return 206 if rows < total else 200


def _negative() -> Refusal:
    return bad_range("Limit should be greater than or equal to zero.")
