"""From the database's rows to values."""

from datetime import UTC

from attrs import frozen
from psycopg.rows import DictRow

from s3edge.ports import INLINE
from s3edge.values import Account, Reservation, Task, TaskStatus


@frozen
class Terms:
    """
    What the settings say and the database acts by.

    Attributes:
        initial_credits: What a new user has.
        segment_cost: What a segmentation costs, in credits.
        task_deadline_s: When an unanswered task is overdue, in seconds.
        dispatch: Who dispatches tasks: ``inline``, or the scheme of a queue.
    """

    initial_credits: int
    segment_cost: int
    task_deadline_s: int
    dispatch: str = INLINE


def task_of(row: DictRow) -> Task:
    """
    Return a row of ``segmentation_results`` as a value.

    Older rows may hold nulls that new ones never do; a row of a list comes without labels and metadata.
    """
    labels, metadata = row.get("labels"), row.get("metadata")
    return Task(
        id=row["id"],
        user_id=row["user_id"],
        project_id=row["project_id"],
        source_image_url=row["source_image_url"],
        text_prompt=row["text_prompt"] or "",
        status=TaskStatus(row["status"]),
        cost=row["cost"],
        created_at=row["created_at"].astimezone(UTC),
        updated_at=(row["updated_at"] or row["created_at"]).astimezone(UTC),
        mask_image_url=row["mask_image_url"],
        labels=labels if isinstance(labels, list) else [],
        metadata=metadata if isinstance(metadata, dict) else {},
        error_code=row["error_code"],
        error_message=row["error_message"],
        attempt=row["attempt"],
    )


def reservation_of(row: DictRow) -> Reservation:
    """Return what ``reserve_task`` answered."""
    return Reservation(task_of(row), row["credits"], row["replayed"])


def account_of(row: DictRow) -> Account:
    """Return a row of ``accounts``."""
    return Account(row["user_id"], row["credits"], row["granted"], row["used"], row["live_cost"])
