"""The ``Database`` port on Postgres itself."""

from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import msgspec
import psycopg
from attrs import asdict
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from s3edge.errors import Code, unavailable
from s3edge.ports import INLINE, Clock, EndNews, Finding, Wiring
from s3edge.rules.lifecycle import COUNTED_BACKLOG, LEASE_S
from s3edge.rules.schema import SCHEMA_VERSION
from s3edge.rules.schema_refusals import refusal_of_grant
from s3edge.rules.storable import without_nul
from s3edge.values import (
    Account,
    Json,
    NewTask,
    Outcome,
    Page,
    Profile,
    Reservation,
    ResultQuery,
    Task,
    User,
)
from s3edge_postgres import statements
from s3edge_postgres.address import PostgresAddress, parse_address
from s3edge_postgres.connections import Connections, deadline
from s3edge_postgres.ends import announce_ends
from s3edge_postgres.examination import examine_database
from s3edge_postgres.refusals import error_of_call
from s3edge_postgres.rows import Terms, account_of, reservation_of, task_of


ACCOUNTS_AT_A_TIME = 500

ENQUEUED_AT_A_TIME = 500


class PostgresDatabase:
    """
    Calls the schema's functions directly, as the role that owns them; every read names its user.

    Prices, and who dispatches, are kept in the database; this writes its own there before the first
    charge.

    Args:
        address: Where it is.
        clock: Compared with the database's when it is examined.
        terms: The prices and times that the settings say.
    """

    def __init__(self, address: PostgresAddress, clock: Clock, terms: Terms) -> None:
        self._address = address
        self._clock = clock
        self._terms = terms
        self._has_agreed = False
        self._connections = Connections(address)

    async def __aenter__(self) -> Self:
        """Open the pool; the database itself may be down."""
        await self._connections.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._connections.__aexit__(kind, error, trace)

    async def profile(self, user: User) -> Profile:
        """Implement ``Database``."""
        ends_at = deadline()
        await self._agree(ends_at)
        [row] = await self._rows(statements.PROFILE, {"user_id": user.user_id}, ends_at=ends_at)
        return Profile(user.user_id, row["credits"])

    async def reserve_task(self, user: User, new: NewTask) -> Reservation:
        """Implement ``Database``."""
        ends_at = deadline()
        await self._agree(ends_at)
        # Repeatable: the task's id is chosen here, and gets the same answer again.
        [row] = await self._rows(
            statements.RESERVE_TASK,
            {
                "user_id": user.user_id,
                "task_id": new.id,
                "image_url": new.source_image_url,
                "text_prompt": new.text_prompt,
                "project_id": new.project_id,
                "idempotency_key": new.idempotency_key,
                "request_hash": new.request_hash,
            },
            ends_at=ends_at,
        )
        return reservation_of(row)

    async def task(self, user: User, task_id: UUID) -> Task | None:
        """Implement ``Database``."""
        rows = await self._rows(statements.TASK, {"task_id": task_id, "user_id": user.user_id})
        return task_of(rows[0]) if rows else None

    async def results(self, user: User, query: ResultQuery) -> Page:
        """Implement ``Database``."""
        statement = statements.results(
            by_position=query.after is not None,
            of_project=query.project_id is not None,
            in_status=query.status is not None,
        )
        values: dict[str, Any] = {
            "user_id": user.user_id,
            "project_id": query.project_id,
            "status": None if query.status is None else query.status.value,
            # One more than asked tells whether others follow.
            "limit": query.limit + 1,
            "offset": query.offset,
        }
        if query.after is not None:
            values |= {"created_at": query.after.created_at, "id": query.after.id}
        rows = await self._rows(statement, values)
        tasks = [task_of(row) for row in rows if row["id"] is not None]
        return Page(
            tasks=tasks[: query.limit],
            has_more=len(tasks) > query.limit,
            total=rows[0]["total"],
        )

    async def start_task(self, task_id: UUID, *, attempt: int | None = None) -> bool:
        """Implement ``Database``."""
        return await self._change(statements.START_TASK, task_id, attempt, {})

    async def complete_task(
        self, task_id: UUID, outcome: Outcome, *, attempt: int | None = None
    ) -> bool:
        """Implement ``Database``."""
        values = {
            "mask_image_url": outcome.mask_image_url,
            "labels": _jsonb(list(outcome.labels)),
            "metadata": _jsonb(dict(outcome.metadata)),
        }
        return await self._change(statements.COMPLETE_TASK, task_id, attempt, values)

    async def fail_task(
        self, task_id: UUID, code: Code, message: str, *, attempt: int | None = None
    ) -> bool:
        """Implement ``Database``."""
        values = {"code": code.value, "message": without_nul(message)}
        return await self._change(statements.FAIL_TASK, task_id, attempt, values)

    async def claim_tasks(self, limit: int, lease_s: float) -> Sequence[Task]:
        """Implement ``Database``."""
        # Not repeated: the tasks of a lost answer come back when their leases run out.
        rows = await self._rows(
            statements.CLAIM_TASKS, {"limit": limit, "lease_s": lease_s}, repeatable=False
        )
        return [task_of(row) for row in rows]

    async def extend_leases(self, held: Mapping[UUID, int], lease_s: float) -> None:
        """Implement ``Database``."""
        if held:
            await self._rows(
                statements.EXTEND_LEASES,
                {"task_ids": list(held), "attempts": list(held.values()), "lease_s": lease_s},
            )

    async def backlog(self) -> int:
        """Implement ``Database``."""
        [row] = await self._rows(statements.BACKLOG, {"limit": COUNTED_BACKLOG})
        count: int = row["count"]
        return count

    async def settle_overdue(self) -> Sequence[UUID]:
        """Implement ``Database``."""
        return [row["id"] for row in await self._rows(statements.SETTLE_OVERDUE, {})]

    async def grant_credits(self, user_id: UUID, amount: int) -> int:
        """
        Implement ``Database``.

        Raises:
            EdgeError: ``NOT_FOUND`` for a user who never signed up.
        """
        try:
            # Not repeated: twice would be twice as much. Nor are terms agreed on before: a grant may come
            # from a shell whose settings are not the servers'.
            [row] = await self._connections.rows(
                statements.GRANT_CREDITS, {"user_id": user_id, "amount": amount}, repeatable=False
            )
        except psycopg.Error as error:
            raise (refusal_of_grant(error.sqlstate) or error_of_call(error)) from None
        balance: int = row["credits"]
        return balance

    async def accounts(self) -> AsyncIterator[Account]:
        """Implement ``Database``."""
        after: UUID | None = None
        while True:
            rows = await self._rows(
                statements.ACCOUNTS, {"after": after, "limit": ACCOUNTS_AT_A_TIME}
            )
            for row in rows:
                yield account_of(row)
            if len(rows) < ACCOUNTS_AT_A_TIME:
                return
            after = rows[-1]["user_id"]

    async def check(self) -> None:
        """Implement ``Checked``."""
        [row] = await self._rows(statements.SCHEMA_VERSION, {})
        if row["version"] < SCHEMA_VERSION:
            raise unavailable(
                f"the database's schema is version {row['version']}, and {SCHEMA_VERSION} is needed"
            )
        if self._terms.dispatch != INLINE and not await self.has_queue():
            raise unavailable("the queue's tables are not there; run: s3edge migrate")

    @property
    def address(self) -> PostgresAddress:
        """Where it is."""
        return self._address

    async def has_queue(self) -> bool:
        """Return whether the queue's tables are there."""
        [row] = await self._rows(statements.HAS_QUEUE, {})
        return row["is_there"] is True

    async def workers(self) -> int:
        """Return how many of the queue's workers have said lately that they are there."""
        [row] = await self._rows(statements.WORKERS, {"stalled_s": LEASE_S})
        count: int = row["count"]
        return count

    async def take_task(self, task_id: UUID) -> Task | None:
        """Lease one task as its next attempt, whoever held it; ``None`` when it has ended."""
        rows = await self._rows(statements.TAKE_TASK, {"task_id": task_id})
        return task_of(rows[0]) if rows else None

    async def enqueue_forgotten(self) -> int:
        """Queue open tasks that have no job, and return how many there were."""
        [row] = await self._rows(statements.ENQUEUE_FORGOTTEN, {"limit": ENQUEUED_AT_A_TIME})
        count: int = row["count"]
        return count

    def examine(self) -> AsyncIterator[Finding]:
        """Implement ``Examinable``."""
        return examine_database(self._address, self._clock)

    async def announce_ends(self, news: EndNews) -> None:
        """Implement ``AnnouncesEnds``."""
        await announce_ends(self._address, self._connections, news)

    async def _agree(self, ends_at: float) -> None:
        """Have the database charge by the settings' terms, once; several at once do no harm."""
        if not self._has_agreed:
            await self._rows(
                statements.AGREE,
                asdict(self._terms),
                ends_at=ends_at,
            )
            self._has_agreed = True

    async def _change(
        self, statement: str, task_id: UUID, attempt: int | None, values: Mapping[str, Any]
    ) -> bool:
        """Change a task, or an attempt at it; return whether anything was changed."""
        [row] = await self._rows(statement, {"task_id": task_id, "attempt": attempt, **values})
        return row["done"] is True

    async def _rows(
        self,
        statement: str,
        values: Mapping[str, Any],
        *,
        repeatable: bool = True,
        ends_at: float | None = None,
    ) -> list[DictRow]:
        try:
            return await self._connections.rows(
                statement, values, repeatable=repeatable, ends_at=ends_at
            )
        except psycopg.Error as error:
            raise error_of_call(error) from None


def from_url(url: str, wiring: Wiring) -> PostgresDatabase:
    """
    Return the database of a ``postgresql:`` setting.

    Raises:
        ValueError: The URL is malformed.
    """
    return PostgresDatabase(
        parse_address(url),
        wiring.clock,
        Terms(wiring.initial_credits, wiring.segment_cost, wiring.task_deadline_s, wiring.dispatch),
    )


def _jsonb(value: Json) -> Jsonb:
    return Jsonb(without_nul(value), dumps=msgspec.json.encode)
