"""What ``Client`` returns: tasks, results, lists and masks that know how to go on."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import attrs
from attrs import Factory, define, field, frozen

from s3edge.client import flows, masks
from s3edge.client.drivers import Driver
from s3edge.client.effects import Flow
from s3edge.client.flows import WAIT_S, OnUpdate
from s3edge.client.handles import Link, TaskHandle
from s3edge.client.masks import CocoRle, Picture
from s3edge.client.models import Page, RawResponse, ResultDetails, ResultSummary, TaskState
from s3edge.client.paging import PAGE_SIZE, Walk
from s3edge.client.session import Session


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


T = TypeVar("T")


@frozen
class Calls:
    """
    How a client and its handles make calls.

    Attributes:
        driver: Runs flows.
        session: What all calls share.
    """

    driver: Driver
    session: Session

    def run(self, flow: Flow[T]) -> T:
        """Return what a flow returns."""
        return self.driver.run(flow)

    def parsed(self, flow: Flow[RawResponse[T]]) -> T:
        """Return what the answer that a flow returns was parsed into."""
        return self.run(flow).parsed


@define
class Mask:
    """
    The mask of a result. It is downloaded once, when it is first needed.

    Attributes:
        result_id: Whose mask it is.
    """

    result_id: UUID
    _url: str | None = field(alias="url", repr=False, eq=False)
    _link: Link[Calls] = field(alias="link", repr=False, eq=False)
    _png: bytes | None = field(alias="png", default=None, repr=False, eq=False)

    def read(self) -> bytes:
        """
        Return the mask as PNG: 8 bits grey, 255 inside and 0 outside.

        Raises:
            MaskNotReady: The result is not done.
        """
        if self._png is None:
            calls = self._link.client
            self._png = calls.run(flows.download_mask(calls.session, self.result_id, self._url))
        return self._png

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save the PNG, and return where it is."""
        saved = Path(path)
        saved.write_bytes(self.read())
        return saved

    def to_pil(self) -> "Image":
        """Return the mask as an image of mode ``L``: 255 inside, 0 outside."""
        return masks.to_pil(self.read())

    def to_numpy(self) -> "NDArray[np.bool_]":
        """Return the mask as an array of height by width, ``True`` inside; needs ``s3edge[masks]``."""
        return masks.to_numpy(self.read())

    def overlay(self, image: Picture) -> "Image":
        """
        Return an image (a path, bytes, or Pillow's) with the masked part tinted, the rest dimmed.

        Raises:
            InvalidRequest: The image cannot be read.
        """
        return masks.overlay(self.read(), image)

    def to_coco_rle(self) -> CocoRle:
        """Return COCO's uncompressed run-length encoding, exact; needs ``s3edge[masks]``."""
        return masks.to_coco_rle(self.read())

    def to_polygons(self, *, tolerance: float = 1.0) -> list[list[float]]:
        """
        Return the outlines as COCO writes them, ``[x, y, x, y, ...]`` a part; needs ``s3edge[masks]``.

        Args:
            tolerance: How far an outline may lie beside the exact one, in pixels. Holes are filled.
        """
        return masks.to_polygons(self.read(), tolerance)


@frozen
class Result(ResultDetails):
    """
    A result, whole, with its mask.

    Attributes:
        mask: Downloaded when it is first needed.
    """

    _link: Link[Calls] = field(alias="link", kw_only=True, repr=False, eq=False)
    mask: Mask = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(
            lambda self: Mask(self.id, self.mask_image_url, self._link), takes_self=True
        ),
    )


@frozen
class ListedResult(ResultSummary):
    """
    A result, as lists show it, with its mask.

    Attributes:
        mask: Downloaded when it is first needed.
    """

    _link: Link[Calls] = field(alias="link", kw_only=True, repr=False, eq=False)
    mask: Mask = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(
            lambda self: Mask(self.id, self.mask_image_url, self._link), takes_self=True
        ),
    )

    def read(self) -> Result:
        """Read the whole result, with labels and metadata."""
        calls = self._link.client
        return result_of(calls.parsed(flows.read_result(calls.session, self.id)), calls)


@define(unsafe_hash=True)  # as TaskHandle
class Task(TaskHandle):
    """
    A segmentation that was asked for. It pickles; ``client.task(task)`` goes on with it elsewhere.

    Attributes:
        id: Names it, now and after a restart.
        state: As it was last seen; ``None`` if it never was.
        idempotency_key: Which it was asked for with; ``None`` where it was not this client that asked.
        replayed: Whether the answer repeated an earlier one of the same key, so that nothing was charged.
    """

    _link: Link[Calls] = field(
        alias="link", factory=Link[Calls], kw_only=True, repr=False, eq=False
    )

    def refresh(self) -> TaskState:
        """Ask how the task stands now."""
        calls = self._link.client
        self.state = calls.parsed(flows.read_task(calls.session, self.id))
        return self.state

    def wait(self, *, timeout: float = WAIT_S, on_update: OnUpdate | None = None) -> Result:
        """
        Wait until the task has ended, and return its result.

        The server holds each answer until there is news, so nothing is asked in vain.

        Args:
            timeout: How long to wait, in seconds.
            on_update: Told each change of the task's state.

        Raises:
            TaskFailed: The segmentation ended in an error; its credit was given back.
            WaitTimeout: It has not ended in time. It goes on, and can be waited for again.
        """
        calls = self._link.client
        details = calls.run(flows.wait(calls.session, self, timeout=timeout, on_update=on_update))
        return result_of(details, calls)


class Results:
    """
    A user's results, newest first: iterate, or take them by ``pages()``. Nothing is read before.

    Args:
        calls: Makes the calls.
        project_id: Only those of a project.
        status: Only those in a status.
        limit_total: How many at the most, in all.
        page_size: How many a request, at the most; 1 to 100.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        project_id: UUID | str | None = None,
        status: str | None = None,
        limit_total: int | None = None,
        page_size: int = PAGE_SIZE,
    ) -> None:
        self._calls = calls
        self._project_id = project_id
        self._status = status
        self._limit_total = limit_total
        self._page_size = page_size

    def __iter__(self) -> Iterator[ListedResult]:
        """Yield each result; the next page is read when it is reached."""
        for page in self.pages():
            yield from page.results

    def pages(self) -> Iterator[Page[ListedResult]]:
        """Yield each page."""
        walk = Walk(self._limit_total, self._page_size)
        while not walk.ended:
            page = self._calls.parsed(
                flows.list_results(
                    self._calls.session,
                    project_id=self._project_id,
                    status=self._status,
                    limit=walk.limit,
                    cursor=walk.cursor,
                )
            )
            yield walk.took(page, lambda summary: listed_of(summary, self._calls))


def task_of(response: RawResponse[TaskState], calls: Calls) -> Task:
    """Return the handle of a task that was just accepted."""
    return Task(
        response.parsed.task_id,
        response.parsed,
        response.idempotency_key,
        response.replayed,
        link=Link(calls),
    )


def result_of(details: ResultDetails, calls: Calls) -> Result:
    """Return a result with its mask."""
    return Result(**attrs.asdict(details, recurse=False), link=Link(calls))


def listed_of(summary: ResultSummary, calls: Calls) -> ListedResult:
    """Return a listed result with its mask."""
    return ListedResult(**attrs.asdict(summary, recurse=False), link=Link(calls))
