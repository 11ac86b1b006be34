"""List a user's tasks, by page or by position."""

from uuid import UUID

from attrs import frozen

from s3edge.ports import Database, ObjectStorage
from s3edge.rules.paging import Cursor
from s3edge.usecases.read_result import with_readable_urls
from s3edge.values import Position, ResultQuery, Task, TaskStatus, User


@frozen
class ResultList:
    """
    A page of results.

    Attributes:
        tasks: Newest first, with URLs that can be read now.
        total: How many match; counted when the walk began.
        page: The page's number.
        next: Where the next page begins; ``None`` on the last one.
    """

    tasks: list[Task]
    total: int
    page: int
    next: Cursor | None


async def list_results(
    user: User,
    *,
    database: Database,
    storage: ObjectStorage,
    limit: int,
    page: int = 1,
    cursor: Cursor | None = None,
    project_id: UUID | None = None,
    status: TaskStatus | None = None,
) -> ResultList:
    """
    Return a page of the user's tasks.

    Args:
        user: Who asks.
        database: Keeps the tasks.
        storage: Makes the URLs.
        limit: 1 to 100.
        page: From 1; ignored when ``cursor`` is given.
        cursor: Where an earlier list said that it goes on.
        project_id: Only of this project.
        status: Only in this status.

    Raises:
        EdgeError: ``SERVICE_UNAVAILABLE``.
    """
    found = await database.results(
        user,
        ResultQuery(
            limit=limit,
            offset=0 if cursor else (page - 1) * limit,
            after=cursor.position if cursor else None,
            project_id=project_id,
            status=status,
        ),
    )
    number = cursor.page if cursor else page
    total = cursor.total if cursor else found.total or 0
    following = None
    if found.has_more and found.tasks:
        last = found.tasks[-1]
        following = Cursor(Position(last.created_at, last.id), number + 1, total)
    return ResultList(
        tasks=[with_readable_urls(task, storage) for task in found.tasks],
        total=total,
        page=number,
        next=following,
    )
