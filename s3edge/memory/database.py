"""Credits and tasks in memory."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from anyio.lowlevel import checkpoint
from attrs import define, evolve

from s3edge.errors import Code
from s3edge.ports import Clock
from s3edge.rules.lifecycle import COUNTED_BACKLOG, LEASE_S, OVERDUE_MESSAGE, has_ended
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


@define
class _Balance:
    credits: int
    granted: int
    used: int = 0


@define
class _Row:
    """A task with what only the database knows of it."""

    task: Task
    request_hash: str | None
    lease_until: datetime
    deadline: datetime


class MemoryDatabase:
    """
    Holds balances and tasks in dictionaries.

    Every method does its work between two awaits, which makes it atomic on one event loop.

    Args:
        clock: Tells the time.
        initial_credits: What a new user has.
        segment_cost: What a task costs.
        task_deadline_s: When an unanswered task is overdue.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        initial_credits: int = 100,
        segment_cost: int = 1,
        task_deadline_s: float = 900,
    ) -> None:
        self._clock = clock
        self._initial_credits = initial_credits
        self._cost = segment_cost
        self._deadline = timedelta(seconds=task_deadline_s)
        self._balances: dict[UUID, _Balance] = {}
        self._rows: dict[UUID, _Row] = {}
        self._by_key: dict[tuple[UUID, str], UUID] = {}

    async def profile(self, user: User) -> Profile:
        """Implement ``Database``."""
        await checkpoint()
        return Profile(user.user_id, self._balance(user.user_id).credits)

    async def reserve_task(self, user: User, new: NewTask) -> Reservation:
        """Implement ``Database``."""
        await checkpoint()
        balance = self._balance(user.user_id)
        if new.idempotency_key is not None:
            first = self._by_key.get((user.user_id, new.idempotency_key))
            if first is not None:
                return self._replayed(self._rows[first], new, balance)
        if balance.credits < self._cost:
            raise insufficient_credits(self._cost, balance.credits)
        balance.credits -= self._cost
        balance.used += self._cost
        now = self._clock.now()
        task = Task(
            id=new.id,
            user_id=user.user_id,
            project_id=new.project_id,
            source_image_url=new.source_image_url,
            text_prompt=new.text_prompt,
            status=TaskStatus.PENDING,
            cost=self._cost,
            created_at=now,
            updated_at=now,
        )
        self._rows[task.id] = _Row(
            task, new.request_hash, now + timedelta(seconds=LEASE_S), now + self._deadline
        )
        if new.idempotency_key is not None:
            self._by_key[user.user_id, new.idempotency_key] = task.id
        return Reservation(task, balance.credits, replayed=False)

    async def task(self, user: User, task_id: UUID) -> Task | None:
        """Implement ``Database``."""
        await checkpoint()
        row = self._rows.get(task_id)
        return row.task if row is not None and row.task.user_id == user.user_id else None

    async def results(self, user: User, query: ResultQuery) -> Page:
        """Implement ``Database``."""
        await checkpoint()
        matching = sorted(
            (
                row.task
                for row in self._rows.values()
                if row.task.user_id == user.user_id
                and query.project_id in (None, row.task.project_id)
                and query.status in (None, row.task.status)
            ),
            key=_newest_first,
            reverse=True,
        )
        if query.after is not None:
            after = (query.after.created_at, query.after.id.bytes)
            matching = [task for task in matching if _newest_first(task) < after]
        start = 0 if query.after else query.offset
        return Page(
            tasks=[
                evolve(task, labels=(), metadata={})
                for task in matching[start : start + query.limit]
            ],
            has_more=len(matching) > start + query.limit,
            total=None if query.after else len(matching),
        )

    async def start_task(self, task_id: UUID, *, attempt: int | None = None) -> bool:
        """Implement ``Database``."""
        await checkpoint()
        row = self._open_row(task_id, attempt)
        if row is None:
            return False
        if row.task.status is TaskStatus.PENDING:
            self._change(row, status=TaskStatus.PROCESSING)
        return True

    async def complete_task(
        self, task_id: UUID, outcome: Outcome, *, attempt: int | None = None
    ) -> bool:
        """Implement ``Database``."""
        await checkpoint()
        row = self._open_row(task_id, attempt)
        if row is None:
            return False
        self._change(
            row,
            status=TaskStatus.DONE,
            mask_image_url=outcome.mask_image_url,
            labels=list(outcome.labels),
            metadata=dict(outcome.metadata),
        )
        return True

    async def fail_task(
        self, task_id: UUID, code: Code, message: str, *, attempt: int | None = None
    ) -> bool:
        """Implement ``Database``."""
        await checkpoint()
        row = self._open_row(task_id, attempt)
        if row is None:
            return False
        self._refund(row, code, message)
        return True

    async def claim_tasks(self, limit: int, lease_s: float) -> Sequence[Task]:
        """Implement ``Database``."""
        await checkpoint()
        now = self._clock.now()
        free = [
            row
            for row in self._rows.values()
            if not has_ended(row.task.status) and row.lease_until <= now
        ]
        claimed = sorted(free, key=lambda row: _newest_first(row.task))[:limit]
        for row in claimed:
            row.lease_until = now + timedelta(seconds=lease_s)
            row.task = evolve(row.task, attempt=row.task.attempt + 1)
        return [row.task for row in claimed]

    async def extend_leases(self, held: Mapping[UUID, int], lease_s: float) -> None:
        """Implement ``Database``."""
        await checkpoint()
        until = self._clock.now() + timedelta(seconds=lease_s)
        for task_id, attempt in held.items():
            row = self._open_row(task_id, attempt)
            if row is not None:
                row.lease_until = until

    async def backlog(self) -> int:
        """Implement ``Database``."""
        await checkpoint()
        waiting = sum(not has_ended(row.task.status) for row in self._rows.values())
        return min(waiting, COUNTED_BACKLOG)

    async def settle_overdue(self) -> Sequence[UUID]:
        """Implement ``Database``."""
        await checkpoint()
        now = self._clock.now()
        overdue = [
            row
            for row in self._rows.values()
            if not has_ended(row.task.status) and row.deadline <= now
        ]
        for row in overdue:
            self._refund(row, Code.INFERENCE_FAILED, OVERDUE_MESSAGE)
        return [row.task.id for row in overdue]

    async def grant_credits(self, user_id: UUID, amount: int) -> int:
        """Implement ``Database``."""
        await checkpoint()
        balance = self._balance(user_id)
        balance.credits += amount
        balance.granted += amount
        return balance.credits

    def set_credits(self, user_id: UUID, credits: int) -> None:
        """Give or take what makes this the user's balance, as grants do; for tests."""
        balance = self._balance(user_id)
        balance.granted += credits - balance.credits
        balance.credits = credits

    async def accounts(self) -> AsyncIterator[Account]:
        """Implement ``Database``."""
        for user_id, balance in list(self._balances.items()):
            await checkpoint()
            live_cost = sum(
                row.task.cost
                for row in self._rows.values()
                if row.task.user_id == user_id and row.task.status is not TaskStatus.ERROR
            )
            yield Account(user_id, balance.credits, balance.granted, balance.used, live_cost)

    async def check(self) -> None:
        """Implement ``Checked``."""

    def _balance(self, user_id: UUID) -> _Balance:
        return self._balances.setdefault(
            user_id, _Balance(self._initial_credits, self._initial_credits)
        )

    def _replayed(self, first: _Row, new: NewTask, balance: _Balance) -> Reservation:
        if first.request_hash != new.request_hash:
            raise key_reused()
        return Reservation(first.task, balance.credits, replayed=True)

    def _open_row(self, task_id: UUID, attempt: int | None) -> _Row | None:
        row = self._rows.get(task_id)
        if row is None or has_ended(row.task.status):
            return None
        return row if attempt in (None, row.task.attempt) else None

    def _change(self, row: _Row, **changes: object) -> None:
        row.task = evolve(row.task, updated_at=self._clock.now(), **changes)  # type: ignore[arg-type]

    def _refund(self, row: _Row, code: Code, message: str) -> None:
        balance = self._balance(row.task.user_id)
        balance.credits += row.task.cost
        balance.used -= row.task.cost
        self._change(row, status=TaskStatus.ERROR, error_code=code.value, error_message=message)


def _newest_first(task: Task) -> tuple[datetime, bytes]:
    return task.created_at, task.id.bytes
