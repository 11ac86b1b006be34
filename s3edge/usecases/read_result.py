"""Tell a user all about one task."""

from uuid import UUID

from attrs import evolve

from s3edge.errors import Code, EdgeError
from s3edge.ports import Database, ObjectStorage
from s3edge.rules.keys import mask_prefix, upload_prefix
from s3edge.values import Task, User


async def read_result(
    user: User, task_id: UUID, *, database: Database, storage: ObjectStorage
) -> Task:
    """
    Return one of the user's tasks, with URLs that can be read now.

    Raises:
        EdgeError: ``NOT_FOUND`` for another user's as for none, ``SERVICE_UNAVAILABLE``.
    """
    task = await database.task(user, task_id)
    if task is None:
        raise EdgeError(Code.NOT_FOUND, "There is no such result.")
    return with_readable_urls(task, storage)


def with_readable_urls(task: Task, storage: ObjectStorage) -> Task:
    """
    Return a task whose URLs can be read now: those kept in the database carry no signature.

    Only what is the user's own is signed. A row may have come another way than through our checks,
    and a signature would open whatever its URL names.
    """
    return evolve(
        task,
        source_image_url=_readable(task.source_image_url, storage, upload_prefix(task.user_id)),
        mask_image_url=(
            None
            if task.mask_image_url is None
            else _readable(task.mask_image_url, storage, mask_prefix(task.user_id))
        ),
    )


def _readable(url: str, storage: ObjectStorage, own: str) -> str:
    key = storage.key_of(url)
    return storage.url_for(key) if key is not None and key.startswith(own) else url
