"""Take back a task whose user was told that it was refused."""

import logging
from uuid import UUID

from s3edge.errors import Code
from s3edge.ports import Database


UNDONE_MESSAGE = "The request was refused, because the database did not answer in time."

_log = logging.getLogger(__name__)


async def undo_reservation(task_id: UUID, *, database: Database) -> bool:
    """
    End and refund a task that may have been reserved although the reservation was not answered.

    Returns:
        Whether there was such a task, and this call ended it.

    Raises:
        EdgeError: ``SERVICE_UNAVAILABLE``; it is still in doubt.
    """
    undone = await database.fail_task(task_id, Code.SERVICE_UNAVAILABLE, UNDONE_MESSAGE)
    if undone:
        _log.warning("task %s was reserved without an answer; it is refunded", task_id)
    return undone
