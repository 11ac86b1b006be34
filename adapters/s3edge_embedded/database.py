"""Credits and tasks in SQLite."""

import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote
from uuid import UUID

import msgspec

from s3edge.errors import Code
from s3edge.ports import Clock, Database, Wiring
from s3edge.rules.lifecycle import COUNTED_BACKLOG, LEASE_S, OVERDUE_MESSAGE
from s3edge.rules.money import insufficient_credits, key_reused
from s3edge.values import (
    Account,
    NewTask,
    Outcome,
    Page,
    Profile,
    Reservation,
    ResultQuery,
    Task,
    TaskStatus,
    User,
)
from s3edge_embedded.sqlite import SqliteFile


MIGRATIONS = "s3edge_embedded.migrations"

_ACCOUNTS_AT_A_TIME = 500

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_OPEN = "status in ('pending', 'processing')"

_LISTED = (
    "id, user_id, project_id, source_image_url, mask_image_url, text_prompt, '[]' as labels,"
    " '{}' as metadata, status, error_code, error_message, cost, created_at, updated_at, attempt"
)
"""A task as a list has it: labels and metadata may be large, and are read one task at a time."""

_NEWEST_FIRST = "order by created_at desc, id desc"

_BALANCE = "select credits from users_profile where id = ?"

_ACCOUNTS = """
    select id, credits, credits_granted,
        (select coalesce(sum(credits_used), 0) from usage_logs where user_id = u.id) as used,
        (select coalesce(sum(cost), 0) from segmentation_results
            where user_id = u.id and status <> 'error') as live_cost
    from users_profile u where id > ? order by id limit ?
"""

_HELD = "id = ? and attempt = coalesce(?, attempt)"
"""A task, by its id and the attempt that the caller holds; without one, whoever holds it."""


class SqliteDatabase:
    """
    The ``Database`` port on one SQLite file, shared by the processes of one machine.

    Args:
        path: Of the file.
        clock: Tells the time.
        initial_credits: What a new user has.
        segment_cost: What a task costs.
        task_deadline_s: When an unanswered task is overdue.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        initial_credits: int = 100,
        segment_cost: int = 1,
        task_deadline_s: float = 900,
    ) -> None:
        self._file = SqliteFile(path, MIGRATIONS)
        self._clock = clock
        self._initial_credits = initial_credits
        self._cost = segment_cost
        self._deadline_us = _microseconds(task_deadline_s)

    async def __aenter__(self) -> Self:
        """Open the file."""
        await self._file.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        await self._file.__aexit__(kind, error, trace)

    async def profile(self, user: User) -> Profile:
        """Implement ``Database``."""
        found = await self._file.read(_BALANCE, [str(user.user_id)])
        if found:
            return Profile(user.user_id, found[0]["credits"])
        now = self._now()

        def create(db: sqlite3.Connection) -> int:
            self._ensure_profile(db, user.user_id, now)
            return _balance(db, user.user_id)

        return Profile(user.user_id, await self._file.write(create))

    async def reserve_task(self, user: User, new: NewTask) -> Reservation:
        """Implement ``Database``."""
        now = self._now()

        def reserve(db: sqlite3.Connection) -> Reservation:
            self._ensure_profile(db, user.user_id, now)
            first = _first_of_key(db, user.user_id, new.idempotency_key)
            if first is not None:
                if first["request_hash"] != new.request_hash:
                    raise key_reused()
                balance = _balance(db, user.user_id)
                return Reservation(_task(first), balance, replayed=True)
            balance = self._debit(db, user.user_id, now)
            task = self._insert(db, user, new, now)
            _log_usage(db, user.user_id, new.id, "segment", self._cost, now)
            return Reservation(task, balance, replayed=False)

        return await self._file.write(reserve)

    async def task(self, user: User, task_id: UUID) -> Task | None:
        """Implement ``Database``."""
        found = await self._file.read(
            "select * from segmentation_results where id = ? and user_id = ?",
            [str(task_id), str(user.user_id)],
        )
        return _task(found[0]) if found else None

    async def results(self, user: User, query: ResultQuery) -> Page:
        """Implement ``Database``."""
        rows = await self._file.read(*_results(user.user_id, query))
        # Of no results there is one row all the same, with their number.
        listed = [] if rows and rows[0]["id"] is None else rows
        return Page(
            tasks=[_task(row) for row in listed[: query.limit]],
            has_more=len(listed) > query.limit,
            total=None if query.after is not None else rows[0]["total"],
        )

    async def start_task(self, task_id: UUID, *, attempt: int | None = None) -> bool:
        """Implement ``Database``."""
        now = self._now()

        def start(db: sqlite3.Connection) -> bool:
            changed = db.execute(
                "update segmentation_results set status = 'processing', updated_at = ?"
                f" where {_HELD} and status = 'pending'",
                (now, str(task_id), attempt),
            ).rowcount
            return changed == 1 or _is_processing(db, task_id, attempt)

        return await self._file.write(start)

    async def complete_task(
        self, task_id: UUID, outcome: Outcome, *, attempt: int | None = None
    ) -> bool:
        """Implement ``Database``."""
        now = self._now()
        labels = msgspec.json.encode(list(outcome.labels)).decode()
        metadata = msgspec.json.encode(dict(outcome.metadata)).decode()
        return await self._file.write(
            lambda db: (
                db.execute(
                    "update segmentation_results set status = 'done', mask_image_url = ?,"
                    f" labels = ?, metadata = ?, updated_at = ? where {_HELD} and {_OPEN}",
                    (outcome.mask_image_url, labels, metadata, now, str(task_id), attempt),
                ).rowcount
                == 1
            )
        )

    async def fail_task(
        self, task_id: UUID, code: Code, message: str, *, attempt: int | None = None
    ) -> bool:
        """Implement ``Database``."""
        now = self._now()
        return await self._file.write(
            lambda db: _fail(db, str(task_id), attempt, code, message, now)
        )

    async def claim_tasks(self, limit: int, lease_s: float) -> Sequence[Task]:
        """Implement ``Database``."""
        now = self._now()
        free = f"{_OPEN} and lease_until <= ?"
        # Most of the time there is nothing to claim, and a look does not wait for the writer.
        if not await self._file.read(
            f"select 1 from segmentation_results where {free} limit 1", [now]
        ):
            return []

        def claim(db: sqlite3.Connection) -> list[Task]:
            claimed = db.execute(
                "update segmentation_results set lease_until = ?, attempt = attempt + 1 where id in"
                f" (select id from segmentation_results where {free} order by created_at, id limit ?)"
                " returning *",
                (now + _microseconds(lease_s), now, limit),
            ).fetchall()
            # What RETURNING yields has no order: https://www.sqlite.org/lang_returning.html
            return sorted(map(_task, claimed), key=lambda task: (task.created_at, task.id.bytes))

        return await self._file.write(claim)

    async def extend_leases(self, held: Mapping[UUID, int], lease_s: float) -> None:
        """Implement ``Database``."""
        until = self._now() + _microseconds(lease_s)
        leases = [(until, str(task_id), attempt) for task_id, attempt in held.items()]
        await self._file.write(
            lambda db: db.executemany(
                f"update segmentation_results set lease_until = ? where {_HELD} and {_OPEN}", leases
            )
        )

    async def backlog(self) -> int:
        """Implement ``Database``."""
        counted = await self._file.read(
            f"select count(*) from (select 1 from segmentation_results where {_OPEN} limit ?)",
            [COUNTED_BACKLOG],
        )
        return int(counted[0][0])

    async def settle_overdue(self) -> Sequence[UUID]:
        """Implement ``Database``."""
        now = self._now()
        overdue = f"select id from segmentation_results where {_OPEN} and deadline_at <= ?"
        if not await self._file.read(overdue, [now]):
            return []

        def settle(db: sqlite3.Connection) -> list[UUID]:
            ids = [str(row["id"]) for row in db.execute(overdue, (now,))]
            for task_id in ids:
                _fail(db, task_id, None, Code.INFERENCE_FAILED, OVERDUE_MESSAGE, now)
            return [UUID(task_id) for task_id in ids]

        return await self._file.write(settle)

    async def grant_credits(self, user_id: UUID, amount: int) -> int:
        """Implement ``Database``."""
        now = self._now()

        def grant(db: sqlite3.Connection) -> int:
            self._ensure_profile(db, user_id, now)
            db.execute(
                "update users_profile set credits = credits + ?,"
                " credits_granted = credits_granted + ?, updated_at = ? where id = ?",
                (amount, amount, now, str(user_id)),
            )
            _log_usage(db, user_id, None, "grant", 0, now, {"amount": amount})
            return _balance(db, user_id)

        return await self._file.write(grant)

    async def accounts(self) -> AsyncIterator[Account]:
        """Implement ``Database``."""
        last = ""
        while True:
            stretch = await self._file.read(_ACCOUNTS, [last, _ACCOUNTS_AT_A_TIME])
            for row in stretch:
                yield Account(
                    UUID(row["id"]),
                    row["credits"],
                    row["credits_granted"],
                    row["used"],
                    row["live_cost"],
                )
            if len(stretch) < _ACCOUNTS_AT_A_TIME:
                return
            last = stretch[-1]["id"]

    async def check(self) -> None:
        """Implement ``Checked``."""
        await self._file.read("select 1 from users_profile limit 1")

    def _now(self) -> int:
        return (self._clock.now() - _EPOCH) // _MICROSECOND

    def _ensure_profile(self, db: sqlite3.Connection, user_id: UUID, now: int) -> None:
        db.execute(
            "insert into users_profile (id, credits, credits_granted, created_at, updated_at)"
            " values (?, ?, ?, ?, ?) on conflict (id) do nothing",
            (str(user_id), self._initial_credits, self._initial_credits, now, now),
        )

    def _debit(self, db: sqlite3.Connection, user_id: UUID, now: int) -> int:
        row = db.execute(
            "update users_profile set credits = credits - ?, updated_at = ?"
            " where id = ? and credits >= ? returning credits",
            (self._cost, now, str(user_id), self._cost),
        ).fetchone()
        if row is None:
            raise insufficient_credits(self._cost, _balance(db, user_id))
        return int(row["credits"])

    def _insert(self, db: sqlite3.Connection, user: User, new: NewTask, now: int) -> Task:
        row = db.execute(
            "insert into segmentation_results (id, user_id, project_id, source_image_url,"
            " text_prompt, status, cost, idempotency_key, request_hash, lease_until, deadline_at,"
            " created_at, updated_at)"
            " values (?, ?, ?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?) returning *",
            (
                str(new.id),
                str(user.user_id),
                None if new.project_id is None else str(new.project_id),
                new.source_image_url,
                new.text_prompt,
                self._cost,
                new.idempotency_key,
                new.request_hash,
                now + _microseconds(LEASE_S),
                now + self._deadline_us,
                now,
                now,
            ),
        ).fetchone()
        return _task(row)


def from_url(url: str, wiring: Wiring) -> Database:
    """
    Return the database of a ``sqlite:///path`` setting.

    Three slashes begin a relative path, four an absolute one.

    Raises:
        ValueError: The URL names no path.
    """
    path = unquote(url.partition("://")[2].removeprefix("/"))
    if not path:
        raise ValueError("name a file, as in sqlite:///data/s3edge.db")
    return SqliteDatabase(
        Path(path),
        wiring.clock,
        initial_credits=wiring.initial_credits,
        segment_cost=wiring.segment_cost,
        task_deadline_s=wiring.task_deadline_s,
    )


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)


def _balance(db: sqlite3.Connection, user_id: UUID) -> int:
    """Return the balance of a user who has a profile."""
    return int(db.execute(_BALANCE, (str(user_id),)).fetchone()["credits"])


def _first_of_key(db: sqlite3.Connection, user_id: UUID, key: str | None) -> sqlite3.Row | None:
    if key is None:
        return None
    row: sqlite3.Row | None = db.execute(
        "select * from segmentation_results where user_id = ? and idempotency_key = ?",
        (str(user_id), key),
    ).fetchone()
    return row


def _is_processing(db: sqlite3.Connection, task_id: UUID, attempt: int | None) -> bool:
    row = db.execute(
        f"select status from segmentation_results where {_HELD}", (str(task_id), attempt)
    ).fetchone()
    return row is not None and row["status"] == TaskStatus.PROCESSING


def _fail(
    db: sqlite3.Connection, task_id: str, attempt: int | None, code: Code, message: str, now: int
) -> bool:
    """End a task in ``error`` and give its credits back, unless it has ended."""
    row = db.execute(
        "update segmentation_results set status = 'error', error_code = ?, error_message = ?,"
        f" updated_at = ? where {_HELD} and {_OPEN} returning user_id, cost",
        (code.value, message, now, task_id, attempt),
    ).fetchone()
    if row is None:
        return False
    db.execute(
        "update users_profile set credits = credits + ?, updated_at = ? where id = ?",
        (row["cost"], now, row["user_id"]),
    )
    _log_usage(db, UUID(row["user_id"]), UUID(task_id), "refund", -row["cost"], now)
    return True


def _log_usage(
    db: sqlite3.Connection,
    user_id: UUID,
    task_id: UUID | None,
    action: str,
    credits_used: int,
    now: int,
    metadata: dict[str, Any] | None = None,
) -> None:
    db.execute(
        "insert into usage_logs (user_id, task_id, action, credits_used, metadata, created_at)"
        " values (?, ?, ?, ?, ?, ?)",
        (
            str(user_id),
            None if task_id is None else str(task_id),
            action,
            credits_used,
            msgspec.json.encode(metadata or {}).decode(),
            now,
        ),
    )


def _results(user_id: UUID, query: ResultQuery) -> tuple[str, Sequence[object]]:
    """Return what lists results, and its values; each row has the total, unless it is read on."""
    where, values = ["user_id = ?"], [str(user_id)]
    if query.project_id is not None:
        where.append("project_id = ?")
        values.append(str(query.project_id))
    if query.status is not None:
        where.append("status = ?")
        values.append(query.status.value)
    chosen = f"from segmentation_results where {' and '.join(where)}"
    # One more than asked tells whether others follow.
    most = query.limit + 1
    if query.after is not None:
        position = ((query.after.created_at - _EPOCH) // _MICROSECOND, str(query.after.id))
        behind = f"select {_LISTED} {chosen} and (created_at, id) < (?, ?)"
        return f"{behind} {_NEWEST_FIRST} limit ?", [*values, *position, most]
    count = f"select count(*) as total {chosen}"
    page = f"select {_LISTED} {chosen} {_NEWEST_FIRST} limit ? offset ?"
    return (
        f"select * from ({count}) left join ({page}) {_NEWEST_FIRST}",
        [*values, *values, most, query.offset],
    )


def _task(row: sqlite3.Row) -> Task:
    return Task(
        id=UUID(row["id"]),
        user_id=UUID(row["user_id"]),
        project_id=None if row["project_id"] is None else UUID(row["project_id"]),
        source_image_url=row["source_image_url"],
        text_prompt=row["text_prompt"],
        status=TaskStatus(row["status"]),
        cost=row["cost"],
        created_at=_EPOCH + row["created_at"] * _MICROSECOND,
        updated_at=_EPOCH + row["updated_at"] * _MICROSECOND,
        mask_image_url=row["mask_image_url"],
        labels=msgspec.json.decode(row["labels"]),
        metadata=msgspec.json.decode(row["metadata"]),
        error_code=row["error_code"],
        error_message=row["error_message"],
        attempt=row["attempt"],
    )
