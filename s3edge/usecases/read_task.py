"""Tell a user how a task stands, at once or when it has ended."""

import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol
from uuid import UUID

import anyio

from s3edge.errors import Code, EdgeError
from s3edge.ports import Database
from s3edge.rules.lifecycle import has_ended
from s3edge.values import Task, User


MAX_WAIT_S = 30.0
"""Contract: ``?wait=`` holds an answer for at most 30 seconds."""


class Watch(Protocol):
    """Waits for one task's end."""

    async def wait(self, timeout_s: float) -> bool:
        """Wait for news of the task; return whether waiting on makes sense."""

    async def look(self, user_id: UUID, read: Callable[[], Awaitable[Task]]) -> Task:
        """Read the task, once for all of the user's waiters whom the same news woke."""


async def read_task(
    user: User,
    task_id: UUID,
    *,
    database: Database,
    watch: Callable[[UUID], AbstractContextManager[Watch]],
    waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
    wait_s: float = 0.0,
    look_every_s: float = math.inf,
) -> Task:
    """
    Return one of the user's tasks.

    Args:
        user: Who asks.
        task_id: Which task.
        database: Keeps it.
        watch: Opens a watch on a task.
        waiting: Opened once while the answer is held; it may refuse.
        wait_s: How long to hold the answer until the task has ended.
        look_every_s: How often to look meanwhile, where the watch does not hear of all ends.

    Raises:
        EdgeError: ``NOT_FOUND`` for another user's task as for none, ``SERVICE_UNAVAILABLE``.
    """

    async def read() -> Task:
        task = await database.task(user, task_id)
        if task is None:
            raise EdgeError(Code.NOT_FOUND, "There is no such task.")
        return task

    ends_at = anyio.current_time() + wait_s
    # The watch opens before the first look, so that no end falls in between.
    with watch(task_id) as news:
        task = await read()
        if has_ended(task.status) or wait_s <= 0:
            return task
        with waiting():
            while (left_s := ends_at - anyio.current_time()) > 0:
                if not await news.wait(min(left_s, look_every_s)):
                    break
                task = await news.look(user.user_id, read)
                if has_ended(task.status):
                    break
        return task
