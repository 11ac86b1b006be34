"""
Drives a ``Database`` through random interleavings, against a model of what it must say.

The suite checks each promise by itself; this finds the orders of events that nobody thought of.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from functools import partial
from typing import ClassVar, TypeVar, TypeVarTuple, Unpack
from uuid import UUID

import hypothesis.strategies as st
from anyio.from_thread import start_blocking_portal
from attrs import define, field, frozen
from hypothesis import Phase, settings
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
)

from s3edge.errors import Code, EdgeError
from s3edge.rules.lifecycle import LEASE_S, has_ended
from s3edge.rules.money import faults_of
from s3edge.testing.contracts.concurrency import at_once
from s3edge.testing.contracts.database import OUTCOME, DatabaseHarness, new_task
from s3edge.values import Account, Position, ResultQuery, TaskStatus, User


USERS = 2
MAX_EXAMPLES = 60
MAX_STEPS = 40

SPAN_S = 10.0
"""
Every span of time is a multiple of it. So no lease or deadline ends near the present, and a database
whose own clock also runs agrees with the model.
"""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

OpenHarness = Callable[[], AbstractAsyncContextManager[DatabaseHarness]]


@define
class _Row:
    """What the model knows of a task."""

    user: int
    created_at: float
    deadline: float
    lease_until: float
    attempt: int = 1
    status: TaskStatus = TaskStatus.PENDING

    @property
    def is_open(self) -> bool:
        return not has_ended(self.status)


@define
class _Model:
    """
    What the database must say; users are numbers.

    Balances are not kept but follow from the tasks, so that the model cannot lose or make credits.
    """

    cost: int
    deadline_s: float
    granted: list[int]
    now: float = 0.0
    rows: dict[UUID, _Row] = field(factory=dict)
    keys: dict[tuple[int, str], tuple[UUID, str]] = field(factory=dict)

    def used(self, user: int) -> int:
        return self.cost * sum(
            row.user == user and row.status is not TaskStatus.ERROR for row in self.rows.values()
        )

    def credits(self, user: int) -> int:
        return self.granted[user] - self.used(user)

    def statuses(self, user: int) -> dict[UUID, TaskStatus]:
        return {task_id: row.status for task_id, row in self.rows.items() if row.user == user}

    def refusal(self, user: int, key: str, request: str) -> Code | None:
        if (user, key) in self.keys:
            _, first_request = self.keys[user, key]
            return None if request == first_request else Code.IDEMPOTENCY_KEY_REUSED
        return Code.INSUFFICIENT_CREDITS if self.credits(user) < self.cost else None

    def add(self, task_id: UUID, user: int) -> None:
        self.rows[task_id] = _Row(user, self.now, self.now + self.deadline_s, self.now + LEASE_S)

    def free(self) -> set[UUID]:
        return {
            task_id
            for task_id, row in self.rows.items()
            if row.is_open and row.lease_until <= self.now
        }

    def overdue(self) -> set[UUID]:
        return {
            task_id
            for task_id, row in self.rows.items()
            if row.is_open and row.deadline <= self.now
        }

    def claim(self, task_ids: Collection[UUID], lease_s: float) -> None:
        for task_id in task_ids:
            self.rows[task_id].lease_until = self.now + lease_s
            self.rows[task_id].attempt += 1

    def hold(self, attempts: Mapping[UUID, int], lease_s: float) -> None:
        for task_id, attempt in attempts.items():
            if attempt == self.rows[task_id].attempt:
                self.rows[task_id].lease_until = self.now + lease_s

    def created_at(self, task_ids: Collection[UUID]) -> Sequence[float]:
        return [self.rows[task_id].created_at for task_id in task_ids]


@frozen
class _Seen:
    """What the database says of a user."""

    balance: int
    account: Account
    statuses: dict[UUID, TaskStatus]


class _DatabaseMachine(RuleBasedStateMachine):
    """The rules, for whatever database ``open_harness`` opens."""

    open_harness: ClassVar[OpenHarness]

    tasks: Bundle[UUID] = Bundle("tasks")
    users = st.integers(0, USERS - 1)
    spans = st.integers(0, 5)
    ages = st.sampled_from([None, 0, 0, 1])

    def __init__(self) -> None:
        super().__init__()
        with ExitStack() as stack:
            # Machines are synchronous; the database lives on the event loop of another thread.
            self._portal = stack.enter_context(start_blocking_portal("asyncio"))
            self._harness = stack.enter_context(
                self._portal.wrap_async_context_manager(type(self).open_harness())
            )
            self._database = self._harness.database
            # What an earlier run left would crowd this run's tasks out of the claims.
            self._run(self._harness.advance, self._harness.deadline_s)
            self._run(self._database.settle_overdue)
            self._users: list[User] = [self._run(self._harness.new_user) for _ in range(USERS)]
            self._exits = stack.pop_all()
        self._model = _Model(
            cost=self._harness.segment_cost,
            deadline_s=self._harness.deadline_s,
            granted=[self._harness.initial_credits] * USERS,
        )

    def teardown(self) -> None:
        """Close the database."""
        self._exits.close()

    def _run(self, function: Callable[[Unpack[Ts]], Awaitable[T]], *arguments: *Ts) -> T:
        return self._portal.call(function, *arguments)

    @rule(
        target=tasks,
        user=users,
        key=st.sampled_from(["a", "b"]),
        request=st.sampled_from(["one", "another"]),
    )
    def reserve_by_key(self, user: int, key: str, request: str) -> MultipleResults[UUID]:
        """Reserve a task by a key: a new one, a repeated one, or one that came with another request."""
        new, refusal = new_task(key=key, request=request), self._model.refusal(user, key, request)
        try:
            reservation = self._run(self._database.reserve_task, self._users[user], new)
        except EdgeError as error:
            assert error.code is refusal  # noqa: PT017 - a refusal is one of two right answers
            return multiple()
        assert refusal is None
        replayed = (user, key) in self._model.keys
        if not replayed:
            self._model.add(new.id, user)
            self._model.keys[user, key] = (new.id, request)
        task_id, _ = self._model.keys[user, key]
        assert (reservation.replayed, reservation.task.id) == (replayed, task_id)
        assert reservation.credits == self._model.credits(user)
        assert reservation.task.status is self._model.rows[task_id].status
        return multiple() if replayed else multiple(task_id)

    @rule(target=tasks, user=users, count=st.integers(1, 20))
    def reserve_at_once(self, user: int, count: int) -> MultipleResults[UUID]:
        """Reserve tasks without a key, concurrently: as many are accepted as the balance covers."""
        affordable = self._model.credits(user) // self._model.cost
        reserve = partial(self._database.reserve_task, self._users[user])
        reservations, refusals = self._run(
            at_once, [partial(reserve, new_task()) for _ in range(count)]
        )
        assert len(reservations) == min(count, affordable)
        assert {error.code for error in refusals} <= {Code.INSUFFICIENT_CREDITS}
        accepted = [reservation.task.id for reservation in reservations]
        for task_id in accepted:
            self._model.add(task_id, user)
        return multiple(*accepted)

    @precondition(lambda self: self._harness.checks_projects)
    @rule(user=users)
    def reserve_for_a_foreign_project(self, user: int) -> None:
        """Ask for a task in another user's project, which is refused."""
        foreign = self._run(self._harness.new_project, self._users[(user + 1) % USERS])
        try:
            self._run(self._database.reserve_task, self._users[user], new_task(project_id=foreign))
        except EdgeError as error:
            assert error.code is Code.INVALID_REQUEST  # noqa: PT017 - it must be this refusal
        else:
            raise AssertionError("a foreign project was accepted")

    @rule(task_id=tasks, age=ages)
    def start(self, task_id: UUID, age: int | None) -> None:
        """Start a task."""
        row = self._model.rows[task_id]
        starts = row.is_open and not age
        start = partial(self._database.start_task, task_id, attempt=_attempt(row, age))
        assert self._run(start) is starts
        if starts:
            row.status = TaskStatus.PROCESSING

    @rule(task_id=tasks, age=ages, ends=st.sampled_from(["complete", "fail", "both at once"]))
    def end(self, task_id: UUID, age: int | None, ends: str) -> None:
        """End a task in one way, or in both concurrently: then one of them happens, whichever."""
        row = self._model.rows[task_id]
        ends_now, attempt = row.is_open and not age, _attempt(row, age)
        complete = partial(self._database.complete_task, task_id, OUTCOME, attempt=attempt)
        fail = partial(
            self._database.fail_task,
            task_id,
            Code.INFERENCE_FAILED,
            "It broke.",
            attempt=attempt,
        )
        calls = {"complete": [complete], "fail": [fail], "both at once": [complete, fail] * 2}[ends]
        ended, refusals = self._run(at_once, calls)
        assert refusals == []
        assert ended.count(True) == ends_now
        if ends_now:
            task = self._run(self._database.task, self._users[row.user], task_id)
            assert task is not None
            possible = {"complete": {TaskStatus.DONE}, "fail": {TaskStatus.ERROR}}
            assert task.status in possible.get(ends, {TaskStatus.DONE, TaskStatus.ERROR})
            row.status = task.status

    @rule(spans=spans)
    def wait(self, spans: int) -> None:
        """Let some time pass."""
        self._advance(spans * SPAN_S)

    @rule(spans=spans, late=st.booleans())
    def settle_overdue(self, spans: int, late: bool) -> None:  # noqa: FBT001 - called by keyword
        """End what is overdue after some time, or when it is late, all."""
        self._advance(spans * SPAN_S + late * self._harness.deadline_s)
        overdue = self._model.overdue()
        settled = self._run(self._database.settle_overdue)
        assert len(set(settled)) == len(settled)
        assert set(settled) & self._model.rows.keys() == overdue
        for task_id in overdue:
            self._model.rows[task_id].status = TaskStatus.ERROR

    @rule(spans=spans, limit=st.sampled_from([1, 3, 50]))
    def claim(self, spans: int, limit: int) -> None:
        """Claim tasks after some time: free ones only, the oldest, as many as the limit lets."""
        self._advance(spans * SPAN_S)
        free = self._model.free()
        batch = self._run(self._database.claim_tasks, limit, LEASE_S)
        claimed = [task.id for task in batch if task.id in self._model.rows]
        assert len(batch) <= limit
        assert len(set(claimed)) == len(claimed)
        assert set(claimed) <= free
        for task in batch:
            if task.id in free:
                row = self._model.rows[task.id]
                assert (task.status, task.attempt) == (row.status, row.attempt + 1)
        left = free - set(claimed)
        ages = self._model.created_at(claimed)
        assert ages == sorted(ages)
        if left:
            assert len(batch) == limit
            assert max(ages, default=0.0) <= min(self._model.created_at(left))
        self._model.claim(claimed, LEASE_S)

    @rule(task_ids=st.lists(tasks, min_size=1, max_size=3), age=st.integers(0, 1), spans=spans)
    def extend_leases(self, task_ids: list[UUID], age: int, spans: int) -> None:
        """Hold some tasks, or let go of them; with old attempts, in vain."""
        held = {task_id: self._model.rows[task_id].attempt - age for task_id in task_ids}
        self._run(self._database.extend_leases, held, spans * SPAN_S)
        self._model.hold(held, spans * SPAN_S)

    @rule(user=users, amount=st.integers(1, 12))
    def grant(self, user: int, amount: int) -> None:
        """Give a user credits."""
        self._model.granted[user] += amount
        balance = self._run(self._database.grant_credits, self._users[user].user_id, amount)
        assert balance == self._model.credits(user)

    @invariant()
    def the_database_says_what_the_model_says(self) -> None:
        """Every balance is the model's, every account's books are right, and so are all statuses."""
        for number, seen in enumerate(self._run(self._seen)):
            balance, used = self._model.credits(number), self._model.used(number)
            assert seen.balance == balance
            assert faults_of(seen.account) == []
            user_id, granted = self._users[number].user_id, self._model.granted[number]
            assert seen.account == Account(user_id, balance, granted, used, used)
            assert seen.statuses == self._model.statuses(number)

    def _advance(self, seconds: float) -> None:
        self._run(self._harness.advance, seconds)
        self._model.now += seconds

    async def _seen(self) -> list[_Seen]:
        """Return what the database says of every user: all at once, for hops to its thread add up."""
        return [
            _Seen(
                balance=(await self._database.profile(user)).credits,
                account=await self._harness.account(user),
                statuses=await self._statuses(user),
            )
            for user in self._users
        ]

    async def _statuses(self, user: User) -> dict[UUID, TaskStatus]:
        page = await self._database.results(user, ResultQuery(limit=100))
        statuses = {task.id: task.status for task in page.tasks}
        while page.has_more:
            last = page.tasks[-1]
            after = Position(last.created_at, last.id)
            page = await self._database.results(user, ResultQuery(limit=100, after=after))
            statuses |= {task.id: task.status for task in page.tasks}
        return statuses


def _attempt(row: _Row, age: int | None) -> int | None:
    """Return the attempt that is so many behind the latest; ``None`` names none."""
    return None if age is None else row.attempt - age


def database_machine(
    open_harness: OpenHarness, max_examples: int = MAX_EXAMPLES
) -> type[RuleBasedStateMachine]:
    """
    Return a state machine over the database that ``open_harness`` opens, once a run.

    Its ``TestCase`` is what a test module assigns to a name for pytest to find::

        TestMyDatabaseMachine = database_machine(open_my_database).TestCase

    Args:
        open_harness: Opens it.
        max_examples: How many runs; fewer where each step is slow.
    """

    class DatabaseMachine(_DatabaseMachine):
        """Named for what Hypothesis shows of it."""

    DatabaseMachine.open_harness = open_harness
    DatabaseMachine.TestCase.settings = settings(
        max_examples=max_examples,
        stateful_step_count=MAX_STEPS,
        deadline=None,
        # One failure in its shortest form is enough, and comes before a test's timeout.
        report_multiple_bugs=False,
        phases=[phase for phase in Phase if phase is not Phase.explain],
    )
    return DatabaseMachine
