"""From the database's rows to values."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from s3edge.errors import unavailable
from s3edge.values import Account, Json, Reservation, Task, TaskStatus


LISTED_COLUMNS = (
    "id,user_id,project_id,source_image_url,mask_image_url,text_prompt,status,cost,error_code,"
    "error_message,created_at,updated_at,deadline_at,attempt"
)
"""All but labels and metadata, which may be large: a page of them may be more than an answer may have."""

TASK_COLUMNS = f"{LISTED_COLUMNS},labels,metadata"

T = TypeVar("T")

_log = logging.getLogger(__name__)


class TaskRow(msgspec.Struct):
    """
    A row of ``segmentation_results``.

    Older ones may hold nulls that new ones never do; one of a list comes without labels and metadata.
    """

    id: UUID
    user_id: UUID
    source_image_url: str
    status: TaskStatus
    created_at: datetime
    cost: int
    deadline_at: datetime
    attempt: int = 1
    text_prompt: str | None = None
    project_id: UUID | None = None
    mask_image_url: str | None = None
    labels: Json = None
    metadata: Json = None
    error_code: str | None = None
    error_message: str | None = None
    updated_at: datetime | None = None

    def task(self) -> Task:
        """Return the row as a value."""
        return Task(
            id=self.id,
            user_id=self.user_id,
            project_id=self.project_id,
            source_image_url=self.source_image_url,
            text_prompt=self.text_prompt or "",
            status=self.status,
            cost=self.cost,
            created_at=self.created_at.astimezone(UTC),
            updated_at=(self.updated_at or self.created_at).astimezone(UTC),
            mask_image_url=self.mask_image_url,
            labels=self.labels if isinstance(self.labels, list) else [],
            metadata=self.metadata if isinstance(self.metadata, dict) else {},
            error_code=self.error_code,
            error_message=self.error_message,
            attempt=self.attempt,
        )


class _ReservationRow(msgspec.Struct):
    replayed: bool
    task: TaskRow
    credits: int


class _ProfileRow(msgspec.Struct):
    credits: int


class _AccountRow(msgspec.Struct):
    user_id: UUID
    credits: int
    granted: int
    used: int
    live_cost: int


class Terms(msgspec.Struct, frozen=True):
    """What the database charges and grants."""

    initial_credits: int
    segment_cost: int
    task_deadline_s: int


def shaped(convert: Callable[[Any], T], answer: Any) -> T:
    """
    Return an answer as values.

    Raises:
        EdgeError: ``SERVICE_UNAVAILABLE``: it has another shape than the schema's.
    """
    try:
        return convert(answer)
    except (ValueError, TypeError, KeyError) as error:
        _log.error("the database's answer has another shape than the schema's: %s", error)
        raise unavailable("The database does not answer properly; try again later.") from None


def ids(answer: Any) -> list[UUID]:
    """
    Return the ids of ``s3edge_settle_overdue``.

    Raises:
        ValueError: They have another shape.
    """
    return msgspec.convert(answer, list[UUID])


def number(answer: Any) -> int:
    """
    Return what ``s3edge_grant_credits`` or ``s3edge_backlog`` answered.

    Raises:
        ValueError: It has another shape.
    """
    return msgspec.convert(answer, int)


def terms(answer: Any) -> Terms:
    """
    Return what ``s3edge_settings`` answered.

    Raises:
        ValueError: It has another shape.
    """
    return msgspec.convert(answer, Terms)


def credits_of(rows: Any) -> int | None:
    """
    Return the balance in the row of a profile; ``None`` when there is none.

    Raises:
        ValueError: The rows have another shape.
    """
    found = msgspec.convert(rows, list[_ProfileRow])
    return found[0].credits if found else None


def task_rows(rows: Any) -> list[TaskRow]:
    """
    Return the rows of tasks.

    Raises:
        ValueError: They have another shape.
    """
    return msgspec.convert(rows, list[TaskRow])


def reservation(answer: Any) -> Reservation:
    """
    Return what ``s3edge_reserve_task`` answered.

    Raises:
        ValueError: It has another shape.
    """
    row = msgspec.convert(answer, _ReservationRow)
    return Reservation(row.task.task(), row.credits, row.replayed)


def account_values(rows: Any) -> list[Account]:
    """
    Return the rows of ``s3edge_accounts``.

    Raises:
        ValueError: They have another shape.
    """
    return [
        Account(row.user_id, row.credits, row.granted, row.used, row.live_cost)
        for row in msgspec.convert(rows, list[_AccountRow])
    ]
