"""
What a put may have left in the bucket when its store went silent, undone once the store is back.

A request that got no answer may still be carried out, after its put was given up. So it is looked at
several times, until long after the store has answered again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import anyio

from s3edge.errors import EdgeError
from s3edge_aiohttp import NoAnswerError


DELAYS_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""When to look, each after the last look that the store answered."""

UNANSWERED_DELAY_S = 10.0

GIVE_UP_S = 900.0

MAX_KEPT = 1000
"""More of them than this are left to the operator; each is one put that failed."""

_LOOKS_AT_ONCE = 4

_log = logging.getLogger(__name__)


class Leftovers:
    """Works off leftovers in the background; an asynchronous context manager."""

    def __init__(self) -> None:
        # A task group would have to be closed by the task that opened it, and hosts do not all do that.
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots: anyio.CapacityLimiter | None = None

    async def __aenter__(self) -> Self:
        """Begin to take leftovers."""
        self._slots = anyio.CapacityLimiter(_LOOKS_AT_ONCE)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; what is not worked off stays."""
        self._slots = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if tasks:
            _log.info("something of %d failed puts may be left in the bucket", len(tasks))

    def add(self, undo: Callable[[], Awaitable[object]]) -> None:
        """
        Take over what is to be undone.

        Args:
            undo: Removes what there is of it, and is no error when there is nothing. ``EdgeError`` is
                the store's answer; after ``NoAnswerError``, and what nobody foresaw, it is tried again.
        """
        if self._slots is None or len(self._tasks) >= MAX_KEPT:
            _log.warning("something of a failed put may be left in the bucket")
            return
        task = asyncio.create_task(self._work_off(undo, self._slots))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work_off(
        self, undo: Callable[[], Awaitable[object]], slots: anyio.CapacityLimiter
    ) -> None:
        given_up_at = anyio.current_time() + GIVE_UP_S
        for delay_s in DELAYS_S:
            await anyio.sleep(delay_s)
            while not await self._is_answered(undo, slots):
                if anyio.current_time() > given_up_at:
                    _log.warning("something of a failed put may be left in the bucket")
                    return
                await anyio.sleep(UNANSWERED_DELAY_S)

    async def _is_answered(
        self, undo: Callable[[], Awaitable[object]], slots: anyio.CapacityLimiter
    ) -> bool:
        try:
            async with slots:
                await undo()
        except NoAnswerError:
            return False
        except EdgeError as error:
            _log.warning("what a failed put left was not removed: %s", error)
        except Exception:  # noqa: BLE001 - logged with its trace; it is tried again
            _log.exception("what a failed put left was not removed")
            return False
        return True
