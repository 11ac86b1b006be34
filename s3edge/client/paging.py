"""How a list is walked: which page is asked for next, and where to stop."""

from collections.abc import Callable
from typing import TypeVar

from attrs import define

from s3edge.client.errors import UnreadableAnswer
from s3edge.client.models import Page, ResultSummary


R = TypeVar("R")

PAGE_SIZE = 100
"""Results a page; the API gives no more."""


@define
class Walk:
    """
    A walk through all pages of a list, by cursor: it neither repeats nor skips what did not change.

    Attributes:
        left: How many results are still wanted; ``None`` for all.
        page_size: How many a page, at the most.
        cursor: Where the next page begins.
        ended: Whether there is no next page, or it is not wanted.
    """

    left: int | None
    page_size: int = PAGE_SIZE
    cursor: str | None = None
    ended: bool = False

    def __attrs_post_init__(self) -> None:
        """Ask for nothing where nothing is wanted."""
        self.ended = self.left is not None and self.left <= 0

    @property
    def limit(self) -> int:
        """How many results to ask for now."""
        return self.page_size if self.left is None else min(self.page_size, self.left)

    def took(self, page: Page[ResultSummary], make: Callable[[ResultSummary], R]) -> Page[R]:
        """
        Go on behind a page; return it with each result made into something else.

        Raises:
            UnreadableAnswer: It is followed by itself, and so by no end.
        """
        if page.next_cursor is not None and page.next_cursor == self.cursor:
            raise UnreadableAnswer("The server sent a page of results that is followed by itself.")
        summaries = page.results if self.left is None else page.results[: self.left]
        if self.left is not None:
            self.left -= len(summaries)
        self.cursor = page.next_cursor
        self.ended = self.cursor is None or self.left == 0
        return Page([make(summary) for summary in summaries], page.total, page.next_cursor)
