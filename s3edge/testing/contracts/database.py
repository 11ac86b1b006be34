"""What any ``Database`` must do."""

import hashlib
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from uuid import UUID, uuid4

import pytest
from attrs import evolve, frozen

from s3edge.errors import Code
from s3edge.ports import Database
from s3edge.rules.lifecycle import LEASE_S, OVERDUE_MESSAGE
from s3edge.rules.money import MAX_GRANT, faults_of
from s3edge.testing.contracts.concurrency import at_once
from s3edge.testing.contracts.refusal import refused
from s3edge.values import (
    Account,
    NewTask,
    Outcome,
    Page,
    Position,
    Reservation,
    ResultQuery,
    Task,
    TaskStatus,
    User,
)


MARGIN_S = 5.0
"""How far from an edge of time the suite stays, for databases whose own clock also runs."""

LARGE_LABEL = 1024 * 1024 * 2
"""Characters."""

LARGE_TASKS = 5
"""So many such labels are more than the 8 MiB that a database's answer over HTTP may have."""

OUTCOME = Outcome(
    mask_image_url="https://storage.example/masks/m",
    labels=[{"label": "貓", "score": 0.5, "box": [0, 1, 2, 3]}, "plain", None],
    metadata={"inference_time_ms": 12.5, "model_version": "1", "nested": {"list": [1, {}]}},
)

OTHER_OUTCOME = Outcome("https://storage.example/masks/other", ["other"], {"other": True})


async def _fresh_user() -> User:
    return User(uuid4())


async def _any_project(user: User) -> UUID:  # noqa: ARG001 - where nobody knows whose it is
    return uuid4()


@frozen
class DatabaseHarness:
    """
    What the suite needs.

    No other suite may use the same database at the same time, because one claims what another leased;
    rows of earlier tests do no harm.

    Attributes:
        database: The port under test.
        advance: Lets so many seconds pass, for the database.
        initial_credits: What a new user has; enough for 5 to 50 tasks.
        segment_cost: What a task costs, 1 or more.
        deadline_s: When an unanswered task is overdue; a multiple of 10, and at least 60.
        new_user: Makes somebody whom the database has not seen.
        new_project: Makes a project of this user's.
        checks_projects: Whether a project that is not the user's is refused.
        usage: Reads ``credits_used`` of a user's usage rows, in any order and not through the port;
            ``None`` where no rows are kept.
    """

    database: Database
    advance: Callable[[float], Awaitable[None]]
    initial_credits: int
    segment_cost: int
    deadline_s: float
    new_user: Callable[[], Awaitable[User]] = _fresh_user
    new_project: Callable[[User], Awaitable[UUID]] = _any_project
    checks_projects: bool = False
    usage: Callable[[User], Awaitable[Collection[int]]] | None = None

    @property
    def affordable(self) -> int:
        """How many tasks a new user can pay for."""
        return self.initial_credits // self.segment_cost

    async def account(self, user: User) -> Account:
        """Return a user's money as the operator sees it; an untouched user need not be listed."""
        async for account in self.database.accounts():
            if account.user_id == user.user_id:
                return account
        return Account(user.user_id, self.initial_credits, self.initial_credits, 0, 0)

    async def assert_books(self, user: User, *, paid: int, granted: int = 0) -> None:
        """Check a user's money: ``paid`` tasks are not in error, ``granted`` credits were added."""
        account, used = await self.account(user), paid * self.segment_cost
        total = self.initial_credits + granted
        assert faults_of(account) == []
        assert account == Account(user.user_id, total - used, total, used, used)
        assert (await self.database.profile(user)).credits == account.credits
        if self.usage is not None:
            assert sum(await self.usage(user)) == used

    async def spend_all(self, user: User) -> None:
        """Reserve as many tasks as a new user can pay for."""
        for _ in range(self.affordable):
            await self.database.reserve_task(user, new_task())

    async def reserve(self, user: User, count: int) -> list[Task]:
        """Reserve so many tasks, one after the other."""
        return [(await self.database.reserve_task(user, new_task())).task for _ in range(count)]

    async def found(self, user: User, task: Task) -> Task:
        """Return a task as it is now."""
        found = await self.database.task(user, task.id)
        assert found is not None
        return found

    async def claim_all(self, lease_s: float = LEASE_S) -> list[Task]:
        """Lease everything that nobody holds, whoever left it behind."""
        claimed: list[Task] = []
        while batch := await self.database.claim_tasks(50, lease_s):
            assert len(batch) <= 50
            claimed += batch
            assert len({task.id for task in claimed}) == len(claimed)
        return claimed

    async def claim_own(self, *tasks: Task) -> list[UUID]:
        """Lease everything that nobody holds, and return which of these tasks were among it."""
        own = {task.id for task in tasks}
        return [task.id for task in await self.claim_all() if task.id in own]


def new_task(
    *, key: str | None = None, request: str = "a request", project_id: UUID | None = None
) -> NewTask:
    """Return what a user may ask for; ``request`` stands for all that the key must come with."""
    return NewTask(
        id=uuid4(),
        source_image_url="https://storage.example/uploads/u/i",
        text_prompt="the red car",
        project_id=project_id,
        idempotency_key=key,
        request_hash=None if key is None else hashlib.sha256(request.encode()).hexdigest(),
    )


class DatabaseContract:
    """
    The promises of ``Database``, checked.

    A subclass supplies the fixture ``harness``.
    """

    pytestmark = pytest.mark.anyio

    async def test_check_passes(self, harness: DatabaseHarness) -> None:
        """The database answers, and nobody's money or task is touched."""
        user = await harness.new_user()
        [task] = await harness.reserve(user, 1)
        await harness.database.check()
        assert await harness.found(user, task) == task
        await harness.assert_books(user, paid=1)

    async def test_a_new_user_has_the_initial_credits(self, harness: DatabaseHarness) -> None:
        """Whoever comes for the first time has the initial credits, however often they look."""
        user = await harness.new_user()
        for _ in range(2):
            profile = await harness.database.profile(user)
            assert (profile.user_id, profile.credits) == (user.user_id, harness.initial_credits)
        newcomer = await harness.new_user()
        profiles, refusals = await at_once([partial(harness.database.profile, newcomer)] * 20)
        assert refusals == []
        assert {profile.credits for profile in profiles} == {harness.initial_credits}
        await harness.assert_books(newcomer, paid=0)

    async def test_a_reservation_takes_the_cost(self, harness: DatabaseHarness) -> None:
        """The cost is taken, and the pending task is there as it was asked for."""
        user = await harness.new_user()
        new = new_task(project_id=await harness.new_project(user))
        reservation = await harness.database.reserve_task(user, new)
        task = reservation.task
        assert not reservation.replayed
        assert reservation.credits == harness.initial_credits - harness.segment_cost
        assert (task.id, task.user_id, task.project_id) == (new.id, user.user_id, new.project_id)
        assert task.source_image_url == new.source_image_url
        assert task.text_prompt == new.text_prompt
        assert (task.status, task.cost) == (TaskStatus.PENDING, harness.segment_cost)
        assert (task.mask_image_url, list(task.labels), dict(task.metadata)) == (None, [], {})
        assert (task.error_code, task.error_message) == (None, None)
        offset = task.created_at.utcoffset()
        assert offset is not None
        assert offset.total_seconds() == 0
        assert await harness.found(user, task) == task
        await harness.assert_books(user, paid=1)
        if harness.usage is not None:
            assert list(await harness.usage(user)) == [harness.segment_cost]

    async def test_an_empty_balance_is_refused(self, harness: DatabaseHarness) -> None:
        """What the balance does not cover is refused, and leaves no trace."""
        user = await harness.new_user()
        await harness.spend_all(user)
        for key in (None, str(uuid4())):
            new = new_task(key=key)
            with refused(Code.INSUFFICIENT_CREDITS):
                await harness.database.reserve_task(user, new)
            assert await harness.database.task(user, new.id) is None
        await harness.assert_books(user, paid=harness.affordable)

    async def test_concurrent_reservations_never_overdraw(self, harness: DatabaseHarness) -> None:
        """Of many reservations at once, exactly those are accepted that the balance covers."""
        user = await harness.new_user()
        granted = max(1, 50 * harness.segment_cost - harness.initial_credits)
        await harness.database.grant_credits(user.user_id, granted)
        affordable = (harness.initial_credits + granted) // harness.segment_cost
        reservations, refusals = await at_once(
            partial(harness.database.reserve_task, user, new_task())
            for _ in range(affordable + 150)
        )
        assert len(reservations) == affordable
        assert {refusal.code for refusal in refusals} == {Code.INSUFFICIENT_CREDITS}
        # Each saw a balance of its own: none took what another had taken.
        rest = harness.initial_credits + granted - affordable * harness.segment_cost
        balances = sorted(reservation.credits for reservation in reservations)
        assert balances == [rest + index * harness.segment_cost for index in range(affordable)]
        await harness.assert_books(user, paid=affordable, granted=granted)

    async def test_a_repeated_key_is_replayed(self, harness: DatabaseHarness) -> None:
        """A repeat gets the first task, as it is by now, and pays nothing, even with nothing left."""
        user, key = await harness.new_user(), str(uuid4())
        first = await harness.database.reserve_task(user, new_task(key=key))
        repeat = new_task(key=key)
        assert await harness.database.reserve_task(user, repeat) == Reservation(
            first.task, first.credits, replayed=True
        )
        assert await harness.database.task(user, repeat.id) is None
        await harness.assert_books(user, paid=1)
        await harness.reserve(user, harness.affordable - 1)
        await harness.database.complete_task(first.task.id, OUTCOME)
        later = await harness.database.reserve_task(user, new_task(key=key))
        assert later.replayed
        assert later.task == await harness.found(user, first.task)
        assert later.task.status is TaskStatus.DONE
        await harness.assert_books(user, paid=harness.affordable)
        # Nor does a refund make the key free: the same request gets the same answer.
        failed = await harness.new_user()
        first = await harness.database.reserve_task(failed, new_task(key=key))
        await harness.database.fail_task(first.task.id, Code.INFERENCE_FAILED, "It broke.")
        later = await harness.database.reserve_task(failed, new_task(key=key))
        assert (later.replayed, later.task.id) == (True, first.task.id)
        assert (later.task.status, later.credits) == (TaskStatus.ERROR, harness.initial_credits)
        await harness.assert_books(failed, paid=0)

    async def test_concurrent_repeats_make_one_task(self, harness: DatabaseHarness) -> None:
        """Of repeats that arrive at once, one is charged, and all get its task."""
        user, key = await harness.new_user(), str(uuid4())
        reservations, refusals = await at_once(
            partial(harness.database.reserve_task, user, new_task(key=key)) for _ in range(30)
        )
        assert refusals == []
        assert len({reservation.task.id for reservation in reservations}) == 1
        assert sum(not reservation.replayed for reservation in reservations) == 1
        assert (await harness.database.results(user, ResultQuery(limit=100))).total == 1
        await harness.assert_books(user, paid=1)

    async def test_a_reused_key_is_refused(self, harness: DatabaseHarness) -> None:
        """A key that comes with another request is refused, whatever became of the first one."""
        user, key = await harness.new_user(), str(uuid4())
        first = await harness.database.reserve_task(user, new_task(key=key, request="the first"))
        for end in (False, True):
            if end:
                await harness.database.fail_task(first.task.id, Code.INFERENCE_FAILED, "It broke.")
            before, other = (
                await harness.found(user, first.task),
                new_task(key=key, request="other"),
            )
            with refused(Code.IDEMPOTENCY_KEY_REUSED):
                await harness.database.reserve_task(user, other)
            assert await harness.database.task(user, other.id) is None
            assert await harness.found(user, first.task) == before
            await harness.assert_books(user, paid=0 if end else 1)

    async def test_keys_are_per_user(self, harness: DatabaseHarness) -> None:
        """Two users may choose the same key, for the same request or for different ones."""
        key, ids = str(uuid4()), set()
        for request in ("the same", "the same", "another"):
            user = await harness.new_user()
            reservation = await harness.database.reserve_task(
                user, new_task(key=key, request=request)
            )
            assert (reservation.replayed, reservation.task.user_id) == (False, user.user_id)
            ids.add(reservation.task.id)
            await harness.assert_books(user, paid=1)
        assert len(ids) == 3

    async def test_a_foreign_project_is_refused(self, harness: DatabaseHarness) -> None:
        """Where projects are known, another user's is refused like one that is not there."""
        user, other = await harness.new_user(), await harness.new_user()
        own, foreign = await harness.new_project(user), await harness.new_project(other)
        reservation = await harness.database.reserve_task(user, new_task(project_id=own))
        assert reservation.task.project_id == own
        for project_id in (foreign, uuid4()):
            if harness.checks_projects:
                with refused(Code.INVALID_REQUEST):
                    await harness.database.reserve_task(user, new_task(project_id=project_id))
            else:
                await harness.database.reserve_task(user, new_task(project_id=project_id))
        await harness.assert_books(user, paid=1 if harness.checks_projects else 3)

    async def test_a_refusal_frees_the_key(self, harness: DatabaseHarness) -> None:
        """The key of a refused request can be used once there are credits, for any request."""
        user, key, granted = await harness.new_user(), str(uuid4()), harness.segment_cost
        await harness.spend_all(user)
        with refused(Code.INSUFFICIENT_CREDITS):
            await harness.database.reserve_task(user, new_task(key=key, request="refused"))
        await harness.database.grant_credits(user.user_id, granted)
        reservation = await harness.database.reserve_task(
            user, new_task(key=key, request="accepted")
        )
        assert not reservation.replayed
        await harness.assert_books(user, paid=harness.affordable + 1, granted=granted)

    async def test_a_fresh_task_is_leased(self, harness: DatabaseHarness) -> None:
        """Nobody can claim a task while whoever reserved it has the lease, nor once it ended."""
        user = await harness.new_user()
        fresh, started, done, failed = tasks = await harness.reserve(user, 4)
        assert [task.attempt for task in tasks] == [1] * 4
        await harness.database.start_task(started.id)
        await harness.database.complete_task(done.id, OUTCOME)
        await harness.database.fail_task(failed.id, Code.INFERENCE_FAILED, "It broke.")
        assert await harness.claim_own(*tasks) == []
        await harness.advance(LEASE_S - MARGIN_S)
        assert await harness.claim_own(*tasks) == []
        await harness.advance(2 * MARGIN_S)
        assert sorted(await harness.claim_own(*tasks)) == sorted([fresh.id, started.id])

    async def test_another_users_task_is_absent(self, harness: DatabaseHarness) -> None:
        """Others cannot tell a user's task from one that does not exist."""
        user, other = await harness.new_user(), await harness.new_user()
        [task] = await harness.reserve(user, 1)
        assert await harness.database.task(user, task.id) == task
        assert await harness.database.task(other, task.id) is None
        assert await harness.database.task(user, uuid4()) is None

    async def test_results_are_newest_first(self, harness: DatabaseHarness) -> None:
        """Results fall by time, and by id among those of the same time."""
        user = await harness.new_user()
        older = await harness.reserve(user, 3)
        await harness.advance(60)
        newer = await harness.reserve(user, 2)
        page = await harness.database.results(user, ResultQuery(limit=100))
        assert {task.id for task in page.tasks[:2]} == {task.id for task in newer}
        assert {task.id for task in page.tasks[2:]} == {task.id for task in older}
        fallen = sorted(page.tasks, key=lambda task: (task.created_at, task.id), reverse=True)
        assert list(page.tasks) == fallen
        assert [await harness.found(user, task) for task in page.tasks] == list(page.tasks)

    async def test_results_are_the_users_own(self, harness: DatabaseHarness) -> None:
        """A list shows all that is the user's and nothing that is not, totals included."""
        user, other, newcomer = [await harness.new_user() for _ in range(3)]
        own = await harness.reserve(user, 2)
        await harness.reserve(other, 3)
        page = await harness.database.results(user, ResultQuery(limit=100))
        assert {task.id for task in page.tasks} == {task.id for task in own}
        assert (page.total, page.has_more) == (2, False)
        empty = await harness.database.results(newcomer, ResultQuery(limit=100))
        assert (list(empty.tasks), empty.total, empty.has_more) == ([], 0, False)

    async def test_a_list_leaves_out_what_it_does_not_show(self, harness: DatabaseHarness) -> None:
        """Labels and metadata are read one task at a time: a page of them may be larger than memory."""
        user = await harness.new_user()
        large = Outcome(OUTCOME.mask_image_url, ["x" * LARGE_LABEL], OUTCOME.metadata)
        for task in await harness.reserve(user, LARGE_TASKS):
            await harness.database.complete_task(task.id, large)
        page = await harness.database.results(user, ResultQuery(limit=100))
        assert len(page.tasks) == LARGE_TASKS
        for listed in page.tasks:
            assert (list(listed.labels), dict(listed.metadata)) == ([], {})
        first = page.tasks[0]
        whole = await harness.found(user, first)
        assert list(whole.labels) == list(large.labels)
        assert evolve(whole, labels=first.labels, metadata=first.metadata) == first

    async def test_results_are_filtered(self, harness: DatabaseHarness) -> None:
        """Filters by project and by status hold alone, together, and when walking by position."""
        user = await harness.new_user()
        projects = [None, await harness.new_project(user), await harness.new_project(user)]
        for project_id in projects:
            new = new_task(project_id=project_id)
            task = (await harness.database.reserve_task(user, new)).task
            await harness.database.reserve_task(user, new_task(project_id=project_id))
            if project_id is not None:
                await harness.database.complete_task(task.id, OUTCOME)
        all_tasks = (await harness.database.results(user, ResultQuery(limit=100))).tasks
        for project_id in [*projects, uuid4()]:
            for status in [None, *TaskStatus]:
                expected = [
                    task
                    for task in all_tasks
                    if project_id in (None, task.project_id) and status in (None, task.status)
                ]
                page = await harness.database.results(
                    user, ResultQuery(limit=100, project_id=project_id, status=status)
                )
                assert (list(page.tasks), page.total) == (expected, len(expected))
                if expected:
                    page = await harness.database.results(
                        user,
                        ResultQuery(
                            limit=100,
                            after=_position(expected[0]),
                            project_id=project_id,
                            status=status,
                        ),
                    )
                    assert list(page.tasks) == expected[1:]

    async def test_offsets_count(self, harness: DatabaseHarness) -> None:
        """Pages by offset show their stretch, what follows and how many there are."""
        user = await harness.new_user()
        await harness.reserve(user, 5)
        everything = (await harness.database.results(user, ResultQuery(limit=100))).tasks
        for offset, limit in ((0, 1), (0, 2), (2, 2), (4, 2), (0, 5), (5, 2), (1000, 2)):
            page = await harness.database.results(user, ResultQuery(limit=limit, offset=offset))
            assert page == Page(
                tasks=everything[offset : offset + limit], has_more=offset + limit < 5, total=5
            )

    async def test_positions_walk_every_row_once(self, harness: DatabaseHarness) -> None:
        """A walk by position reads each row once, while new ones arrive and others change."""
        user = await harness.new_user()
        await harness.reserve(user, 3)
        await harness.advance(60)
        await harness.reserve(user, 2)
        await harness.advance(60)
        everything = (await harness.database.results(user, ResultQuery(limit=100))).tasks
        page = await harness.database.results(user, ResultQuery(limit=2))
        walked = list(page.tasks)
        while page.has_more:
            assert len(page.tasks) == 2
            await harness.database.start_task(walked[-1].id)
            await harness.database.start_task(everything[-1].id)
            # An offset by chance given too is ignored.
            query = ResultQuery(limit=2, offset=1, after=_position(walked[-1]))
            page = await harness.database.results(user, query)
            assert page.total is None
            walked += page.tasks
            if len(walked) == 4:
                await harness.reserve(user, 1)
        assert [task.id for task in walked] == [task.id for task in everything]

    async def test_a_task_starts_until_it_ended(self, harness: DatabaseHarness) -> None:
        """A task is started once or again, but not when it has ended or never was."""
        user = await harness.new_user()
        done, failed = await harness.reserve(user, 2)
        for task in (done, failed):
            for _ in range(2):
                assert await harness.database.start_task(task.id) is True
                assert (await harness.found(user, task)).status is TaskStatus.PROCESSING
        await harness.database.complete_task(done.id, OUTCOME)
        await harness.database.fail_task(failed.id, Code.INFERENCE_FAILED, "It broke.")
        for task in (done, failed):
            before = await harness.found(user, task)
            assert await harness.database.start_task(task.id) is False
            assert await harness.found(user, task) == before
        assert await harness.database.start_task(uuid4()) is False

    async def test_a_completed_task_has_its_result(self, harness: DatabaseHarness) -> None:
        """A task that ends well keeps its cost and shows what the model said, unchanged."""
        user = await harness.new_user()
        pending, processing = await harness.reserve(user, 2)
        await harness.database.start_task(processing.id)
        await harness.advance(60)
        for task in (pending, processing):
            assert await harness.database.complete_task(task.id, OUTCOME) is True
            ended = await harness.found(user, task)
            assert ended.status is TaskStatus.DONE
            assert ended.mask_image_url == OUTCOME.mask_image_url
            assert list(ended.labels) == list(OUTCOME.labels)
            assert dict(ended.metadata) == dict(OUTCOME.metadata)
            assert (ended.error_code, ended.error_message) == (None, None)
            assert ended.updated_at > ended.created_at
        assert await harness.database.complete_task(uuid4(), OUTCOME) is False
        await harness.assert_books(user, paid=2)

    async def test_the_first_outcome_wins(self, harness: DatabaseHarness) -> None:
        """Whatever is said of a task after its end changes neither it nor the money."""
        user = await harness.new_user()
        done, failed, raced = await harness.reserve(user, 3)
        await harness.database.complete_task(done.id, OUTCOME)
        await harness.database.fail_task(failed.id, Code.INVALID_REQUEST, "It cannot be read.")
        for task in (done, failed):
            before = await harness.found(user, task)
            assert await harness.database.complete_task(task.id, OTHER_OUTCOME) is False
            assert (
                await harness.database.fail_task(task.id, Code.INFERENCE_FAILED, "Later.") is False
            )
            assert await harness.found(user, task) == before
        await harness.assert_books(user, paid=2)
        ends = [
            partial(harness.database.complete_task, raced.id, OUTCOME),
            partial(harness.database.fail_task, raced.id, Code.INFERENCE_FAILED, "It broke."),
        ]
        ended, refusals = await at_once(ends * 10)
        assert refusals == []
        assert ended.count(True) == 1
        status = (await harness.found(user, raced)).status
        assert status in (TaskStatus.DONE, TaskStatus.ERROR)
        await harness.assert_books(user, paid=2 if status is TaskStatus.DONE else 1)

    async def test_a_failed_task_is_refunded_once(self, harness: DatabaseHarness) -> None:
        """A task that fails gives its cost back, once, however often and however fast it fails."""
        user, message = await harness.new_user(), "The image can't be read: 貓."
        pending, processing = await harness.reserve(user, 2)
        await harness.database.start_task(processing.id)
        for left, task in ((1, pending), (0, processing)):
            fail = partial(harness.database.fail_task, task.id, Code.INVALID_REQUEST, message)
            ended, refusals = await at_once([fail] * 10)
            assert refusals == []
            assert ended.count(True) == 1
            assert await fail() is False
            failed = await harness.found(user, task)
            assert failed.status is TaskStatus.ERROR
            assert (failed.error_code, failed.error_message) == ("INVALID_REQUEST", message)
            assert failed.mask_image_url is None
            await harness.assert_books(user, paid=left)
        assert await harness.database.fail_task(uuid4(), Code.INFERENCE_FAILED, "None.") is False
        if harness.usage is not None:
            cost = harness.segment_cost
            assert sorted(await harness.usage(user)) == [-cost, -cost, cost, cost]

    async def test_a_task_is_claimed_once(self, harness: DatabaseHarness) -> None:
        """Callers at the same time share the tasks out, and none gets more than it asked for."""
        user = await harness.new_user()
        count = harness.affordable
        tasks = await harness.reserve(user, count)
        await harness.advance(LEASE_S + MARGIN_S)
        batches, refusals = await at_once(
            [partial(harness.database.claim_tasks, 2, LEASE_S)] * count
        )
        assert refusals == []
        assert max(len(batch) for batch in batches) <= 2
        own = {task.id for task in tasks}
        claimed = [task.id for batch in batches for task in batch if task.id in own]
        claimed += await harness.claim_own(*tasks)
        assert sorted(claimed) == sorted(own)

    async def test_a_lapsed_lease_is_claimed_again(self, harness: DatabaseHarness) -> None:
        """A claimed task comes back when its lease runs out, oldest first, and not before."""
        user = await harness.new_user()
        [older] = await harness.reserve(user, 1)
        await harness.advance(10)
        [newer] = await harness.reserve(user, 1)
        await harness.database.start_task(older.id)
        await harness.advance(LEASE_S + MARGIN_S)
        for _ in range(3):
            claimed = [
                task for task in await harness.claim_all(120) if task.user_id == user.user_id
            ]
            assert [task.id for task in claimed] == [older.id, newer.id]
            assert [await harness.found(user, task) for task in claimed] == claimed
            await harness.advance(120 - MARGIN_S)
            assert await harness.claim_own(older, newer) == []
            await harness.advance(2 * MARGIN_S)

    async def test_an_extended_lease_holds(self, harness: DatabaseHarness) -> None:
        """Extended leases run from now, those of claimed tasks too, and unknown ids do no harm."""
        user = await harness.new_user()
        held, lapsing = tasks = await harness.reserve(user, 2)
        await harness.advance(LEASE_S - MARGIN_S)
        await harness.database.extend_leases({held.id: 1, uuid4(): 1}, 120)
        await harness.advance(2 * MARGIN_S)
        assert await harness.claim_own(*tasks) == [lapsing.id]
        await harness.database.extend_leases({lapsing.id: 2}, 120)
        await harness.database.extend_leases({}, 120)
        await harness.advance(120 - 3 * MARGIN_S)
        assert await harness.claim_own(*tasks) == []
        await harness.advance(2 * MARGIN_S)
        assert await harness.claim_own(*tasks) == [held.id]
        await harness.advance(2 * MARGIN_S)
        assert await harness.claim_own(*tasks) == [lapsing.id]

    async def test_a_released_task_is_claimed_at_once(self, harness: DatabaseHarness) -> None:
        """A holder that lets go makes its tasks free, those that ended excepted."""
        user = await harness.new_user()
        pending, processing, done, kept = tasks = await harness.reserve(user, 4)
        await harness.database.start_task(processing.id)
        await harness.database.complete_task(done.id, OUTCOME)
        await harness.database.extend_leases({pending.id: 1, processing.id: 1, done.id: 1}, 0)
        claimed = await harness.claim_own(*tasks)
        assert sorted(claimed) == sorted([pending.id, processing.id])
        assert await harness.claim_own(*tasks) == []
        await harness.database.extend_leases({kept.id: 1, pending.id: 2}, 0)
        assert sorted(await harness.claim_own(*tasks)) == sorted([kept.id, pending.id])

    async def test_an_older_attempt_changes_nothing(self, harness: DatabaseHarness) -> None:
        """Whoever lost a task to a later attempt neither starts, ends, holds nor frees it any more."""
        user, database = await harness.new_user(), harness.database
        first = dict(zip("cfh", await harness.reserve(user, 3), strict=True))
        await harness.advance(LEASE_S + MARGIN_S)
        later = {task.id: task for task in await harness.claim_all(120)}
        completed, failed, held = (later[task.id] for task in first.values())
        assert [task.attempt for task in (completed, failed, held)] == [2, 2, 2]
        for task in (completed, failed, held):
            assert await database.start_task(task.id, attempt=1) is False
            assert await database.complete_task(task.id, OTHER_OUTCOME, attempt=1) is False
            lost = await database.fail_task(task.id, Code.INFERENCE_FAILED, "Old.", attempt=1)
            assert lost is False
            # Nor does a number that nobody was given.
            assert await database.complete_task(task.id, OTHER_OUTCOME, attempt=3) is False
            assert await harness.found(user, task) == task
        await database.extend_leases({held.id: 1, failed.id: 3}, 0)
        assert await harness.claim_own(completed, failed, held) == []
        await harness.assert_books(user, paid=3)
        assert await database.start_task(completed.id, attempt=2) is True
        assert await database.complete_task(completed.id, OUTCOME, attempt=2) is True
        assert await database.complete_task(completed.id, OTHER_OUTCOME, attempt=2) is False
        assert await database.fail_task(failed.id, Code.INVALID_REQUEST, "No.", attempt=2) is True
        await database.extend_leases({held.id: 2}, 0)
        assert await harness.claim_own(held) == [held.id]
        assert (await harness.found(user, held)).attempt == 3
        await harness.assert_books(user, paid=2)

    async def test_the_backlog_is_counted(self, harness: DatabaseHarness) -> None:
        """What waits and what runs is counted, whosever it is; what has ended is not."""
        before = await harness.database.backlog()
        user, other = await harness.new_user(), await harness.new_user()
        started, done, failed = await harness.reserve(user, 3)
        await harness.reserve(other, 1)
        await harness.database.start_task(started.id)
        await harness.database.complete_task(done.id, OUTCOME)
        await harness.database.fail_task(failed.id, Code.INFERENCE_FAILED, "It broke.")
        assert await harness.database.backlog() == before + 2

    async def test_overdue_tasks_are_settled(self, harness: DatabaseHarness) -> None:
        """Tasks past their deadline end in error, refunded once, whoever holds them; others stay."""
        user = await harness.new_user()
        pending, processing, done, failed = tasks = await harness.reserve(user, 4)
        await harness.database.start_task(processing.id)
        await harness.database.complete_task(done.id, OUTCOME)
        await harness.database.fail_task(failed.id, Code.INVALID_REQUEST, "It cannot be read.")
        ended = [await harness.found(user, task) for task in (done, failed)]
        await harness.advance(harness.deadline_s - MARGIN_S)
        assert not {task.id for task in tasks} & set(await harness.database.settle_overdue())
        await harness.database.extend_leases({processing.id: 1}, 3600)
        [fresh] = await harness.reserve(user, 1)
        await harness.assert_books(user, paid=4)
        await harness.advance(2 * MARGIN_S)
        batches, refusals = await at_once([harness.database.settle_overdue] * 5)
        assert refusals == []
        own = {task.id for task in [*tasks, fresh]}
        settled = [task_id for batch in batches for task_id in batch if task_id in own]
        assert sorted(settled) == sorted([pending.id, processing.id])
        for task in (pending, processing):
            overdue = await harness.found(user, task)
            assert (overdue.status, overdue.error_message) == (TaskStatus.ERROR, OVERDUE_MESSAGE)
            assert overdue.error_code == Code.INFERENCE_FAILED
        assert await harness.found(user, fresh) == fresh
        assert await harness.database.complete_task(pending.id, OUTCOME) is False
        assert await harness.database.fail_task(pending.id, Code.INFERENCE_FAILED, "x") is False
        assert [await harness.found(user, task) for task in (done, failed)] == ended
        await harness.assert_books(user, paid=2)

    async def test_a_grant_adds_up(self, harness: DatabaseHarness) -> None:
        """Grants add to what a user has, from the first one to the largest, and at once."""
        user = await harness.new_user()
        balance = await harness.database.grant_credits(user.user_id, 1)
        assert balance == harness.initial_credits + 1
        await harness.assert_books(user, paid=0, granted=1)
        balances, refusals = await at_once(
            [partial(harness.database.grant_credits, user.user_id, 2)] * 20
        )
        assert refusals == []
        assert sorted(balances) == [balance + 2 * count for count in range(1, 21)]
        await harness.reserve(user, 1)
        balance = await harness.database.grant_credits(user.user_id, MAX_GRANT)
        granted = 41 + MAX_GRANT
        assert balance == harness.initial_credits + granted - harness.segment_cost
        await harness.assert_books(user, paid=1, granted=granted)

    async def test_accounts_add_up(self, harness: DatabaseHarness) -> None:
        """Every user is listed once with what the rows say, also while money moves."""
        users = [await harness.new_user() for _ in range(3)]
        own = {user.user_id for user in users}
        for user in users:
            await harness.reserve(user, 3)

        async def spend(user: User) -> None:
            [done, failed] = await harness.reserve(user, 2)
            await harness.database.complete_task(done.id, OUTCOME)
            await harness.database.fail_task(failed.id, Code.INFERENCE_FAILED, "It broke.")
            await harness.database.grant_credits(user.user_id, 7)

        async def audit(_: User) -> None:
            seen = [a async for a in harness.database.accounts() if a.user_id in own]
            assert {account.user_id for account in seen} == own
            assert len(seen) == len(own)
            assert [faults_of(account) for account in seen] == [[], [], []]

        _, refusals = await at_once(
            partial(act, user) for user in users for act in (spend, audit, audit)
        )
        assert refusals == []
        for user in users:
            await harness.assert_books(user, paid=4, granted=7)


def _position(task: Task) -> Position:
    return Position(task.created_at, task.id)
