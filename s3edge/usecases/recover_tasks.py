"""Find tasks that nobody holds, and end those that waited too long."""

import logging
from collections.abc import Sequence
from uuid import UUID

from attrs import frozen

from s3edge.errors import EdgeError
from s3edge.ports import Database
from s3edge.values import Task


_log = logging.getLogger(__name__)


@frozen
class Recovered:
    """
    What recovery found.

    Attributes:
        claimed: Tasks that now belong to the caller.
        settled: Ids of overdue tasks that ended in ``error``, refunded.
    """

    claimed: Sequence[Task]
    settled: Sequence[UUID]


async def recover_tasks(limit: int, lease_s: float, *, database: Database) -> Recovered:
    """
    End overdue tasks, then lease up to ``limit`` that nobody holds.

    Raises:
        EdgeError: ``SERVICE_UNAVAILABLE``.
    """
    try:
        settled = await database.settle_overdue()
    except EdgeError as error:
        # What keeps refunds from being made need not keep tasks from being run.
        _log.warning("overdue tasks have to wait: %s", error)
        settled = ()
    claimed = await database.claim_tasks(limit, lease_s) if limit > 0 else ()
    return Recovered(claimed, settled)
