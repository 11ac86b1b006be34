"""Find tasks that nobody holds, and end those that waited too long."""

from collections.abc import Sequence
from uuid import UUID

from attrs import frozen

from s3edge.ports import Database
from s3edge.values import Task


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
    settled = await database.settle_overdue()
    claimed = await database.claim_tasks(limit, lease_s) if limit > 0 else ()
    return Recovered(claimed, settled)
