"""A Postgres that is away, frozen, full or replaced: said in time, and over when it is over."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from random import Random
from uuid import uuid4

import anyio
import psycopg
import pytest

from s3edge.errors import Code, EdgeError
from s3edge.rules.lifecycle import LEASE_S
from s3edge.rules.money import faults_of
from s3edge.testing.contracts.concurrency import at_once
from s3edge.testing.contracts.database import OUTCOME, new_task
from s3edge.testing.contracts.refusal import refused
from s3edge.testing.standins.fault_proxy import FaultProxy, Mode
from s3edge.values import ResultQuery, User
from s3edge_postgres import connections
from s3edge_postgres.database import PostgresDatabase
from tests.unit.postgres.conftest import TERMS, Postgres
from tests.waiting import until


pytestmark = pytest.mark.anyio

WAITING = (
    "select count(*) from pg_stat_activity where usename = 'plain' and wait_event_type = 'Lock'"
)

IN_TIME_S = 5.0
"""What an app may wait for the news of an outage, and after it."""

SHORT_STATEMENT_TIMEOUT_S = 1.0


@pytest.fixture
async def database(postgres: Postgres) -> AsyncIterator[PostgresDatabase]:
    """Open the adapter straight at the server."""
    async with postgres.opened() as database:
        yield database


async def all_accounts(database: PostgresDatabase) -> int:
    """Walk the accounts."""
    return len([account async for account in database.accounts()])


def calls(database: PostgresDatabase) -> Sequence[Callable[[], Awaitable[object]]]:
    """Return one call of everything that the port can do."""
    user, task_id = User(uuid4()), uuid4()
    return [
        partial(database.profile, user),
        partial(database.reserve_task, user, new_task()),
        partial(database.task, user, task_id),
        partial(database.results, user, ResultQuery(limit=10)),
        partial(database.start_task, task_id),
        partial(database.complete_task, task_id, OUTCOME, attempt=1),
        partial(database.fail_task, task_id, Code.INFERENCE_FAILED, "It broke."),
        partial(database.claim_tasks, 1, LEASE_S),
        partial(database.extend_leases, {task_id: 1}, LEASE_S),
        database.backlog,
        database.settle_overdue,
        partial(database.grant_credits, user.user_id, 1),
        partial(all_accounts, database),
        database.check,
    ]


async def in_time(
    calls: Sequence[Callable[[], Awaitable[object]]],
) -> tuple[list[object], list[EdgeError]]:
    """Run calls at once, each of which has to end in time."""

    async def ended_in_time(call: Callable[[], Awaitable[object]]) -> object:
        with anyio.fail_after(IN_TIME_S):
            return await call()

    return await at_once([partial(ended_in_time, call) for call in calls])


async def assert_out(database: PostgresDatabase) -> None:
    """Check that every call says in time that the database is out, and nothing else."""
    answered, refusals = await in_time(calls(database))
    assert answered == []
    assert {refusal.code for refusal in refusals} == {Code.SERVICE_UNAVAILABLE}
    assert all(refusal.retryable for refusal in refusals)


async def assert_back(database: PostgresDatabase) -> None:
    """Check that every call is answered, in time."""
    answered, refusals = await in_time(calls(database))
    assert refusals == []
    assert len(answered) == len(calls(database))


@contextmanager
def stopped(postgres: Postgres, proxy: FaultProxy) -> Iterator[None]:
    """End the server, as a crash does."""
    postgres.server.stop()
    try:
        yield
    finally:
        postgres.server.start()


@contextmanager
def frozen(postgres: Postgres, proxy: FaultProxy) -> Iterator[None]:
    """Have the server's processes do nothing."""
    with postgres.frozen():
        yield


@contextmanager
def unreachable(postgres: Postgres, proxy: FaultProxy) -> Iterator[None]:
    """Have nothing listen on the server's port."""
    proxy.mode = Mode.REFUSE
    yield
    proxy.mode = Mode.PASS


@contextmanager
def silent(postgres: Postgres, proxy: FaultProxy) -> Iterator[None]:
    """Have connections be accepted, and nothing answered; those there are, freeze."""
    proxy.mode = Mode.HANG
    yield
    proxy.mode = Mode.PASS


@contextmanager
def garbled(postgres: Postgres, proxy: FaultProxy) -> Iterator[None]:
    """Have somebody else answer."""
    proxy.mode = Mode.GARBAGE
    yield
    proxy.mode = Mode.PASS


@contextmanager
def full(postgres: Postgres, proxy: FaultProxy) -> Iterator[None]:
    """Have the server take no more connections, and end those there are."""
    postgres.run_as_superuser("alter role plain connection limit 0")
    postgres.terminate()
    yield
    postgres.run_as_superuser("alter role plain connection limit -1")


Fault = Callable[[Postgres, FaultProxy], AbstractContextManager[None]]

FAULTS: Sequence[Fault] = (stopped, frozen, unreachable, silent, garbled, full)


@pytest.mark.parametrize(
    ("fault", "was_used"),
    [*((fault, True) for fault in FAULTS), (stopped, False), (frozen, False)],
    ids=lambda value: value.__name__ if callable(value) else "in use" if value else "fresh",
)
async def test_an_outage_is_said_in_time_and_ends(
    postgres: Postgres, fault: Fault, was_used: bool
) -> None:
    """Every call says ``SERVICE_UNAVAILABLE`` within 5 s, and works within 5 s of the end."""
    port = postgres.server.database("plain").port
    with FaultProxy("127.0.0.1", port) as proxy:
        url = postgres.url.replace(f":{port}/", f":{proxy.port}/")
        async with postgres.opened(url=url) as database:
            if was_used:
                await assert_back(database)
            with fault(postgres, proxy):
                await assert_out(database)
            await assert_back(database)


async def test_a_crash_under_load_loses_and_doubles_nothing(
    postgres: Postgres, database: PostgresDatabase
) -> None:
    """While the server is restarted, calls are answered in time or refused, and the books are right."""
    user, accepted, refusals = User(uuid4()), [], list[EdgeError]()
    is_over = anyio.Event()

    async def reserve_on() -> None:
        while not is_over.is_set():
            new = new_task(key=str(uuid4()))
            try:
                with anyio.fail_after(IN_TIME_S):
                    accepted.append((await database.reserve_task(user, new)).task.id)
            except EdgeError as error:
                refusals.append(error)
                # As a client does: the same request, until it is answered.
                with refused_or_accepted():
                    accepted.append((await database.reserve_task(user, new)).task.id)

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(reserve_on)
        for restarts in range(3):
            if restarts:
                await anyio.to_thread.run_sync(postgres.server.restart)
            enough = len(accepted) + 20
            while len(accepted) < enough:
                await anyio.sleep(0.01)
        is_over.set()
    assert {refusal.code for refusal in refusals} <= {Code.SERVICE_UNAVAILABLE}
    # What was answered is there; what was not may be there too, each charged once.
    assert len(set(accepted)) == len(accepted)
    [account] = [a async for a in database.accounts() if a.user_id == user.user_id]
    assert faults_of(account) == []
    assert len(accepted) <= account.used <= len(accepted) + len(refusals)


@contextmanager
def refused_or_accepted() -> Iterator[None]:
    """Let a repeat be refused for the same reason as the first time."""
    try:
        yield
    except EdgeError as error:
        assert error.code is Code.SERVICE_UNAVAILABLE  # noqa: PT017 - one of two right answers


async def test_idle_connections_that_ended_are_not_noticed(
    postgres: Postgres, database: PostgresDatabase
) -> None:
    """Sessions that were ended while nobody used them cost no call its answer, not even a grant."""
    for _ in range(3):
        await assert_back(database)
        assert postgres.terminate() >= 1
        user_id = uuid4()
        assert await database.grant_credits(user_id, 1) == TERMS.initial_credits + 1


@contextmanager
def locked(postgres: Postgres, user: User) -> Iterator[psycopg.Connection]:
    """Hold a user's row, so that whoever changes it waits."""
    with psycopg.connect(postgres.url) as connection:
        connection.execute(
            "select from public.users_profile where id = %s for update", (user.user_id,)
        )
        yield connection


async def waits(postgres: Postgres) -> None:
    """Wait until a session waits for a lock."""
    await until(lambda: postgres.run_as_superuser(WAITING) == [(1,)])


def sessions(postgres: Postgres) -> set[int]:
    """Return the adapter's sessions, as the server sees them."""
    rows = postgres.run(
        "select pid from pg_stat_activity where usename = 'plain' and application_name = 's3edge'"
    )
    return {pid for (pid,) in rows}


async def test_a_call_whose_connection_breaks_is_repeated_once(
    postgres: Postgres, database: PostgresDatabase
) -> None:
    """A reservation is made, once, although its session is ended under it; a grant is refused."""
    user, new = User(uuid4()), new_task()
    await database.grant_credits(user.user_id, 1)
    reservations = []

    async def reserve() -> None:
        reservations.append(await database.reserve_task(user, new))

    with locked(postgres, user) as lock:
        async with anyio.create_task_group() as group:
            group.start_soon(reserve)
            await waits(postgres)
            assert postgres.terminate("wait_event_type = 'Lock'") == 1
            await waits(postgres)
            lock.rollback()
    assert [reservation.task.id for reservation in reservations] == [new.id]
    [account] = [a async for a in database.accounts() if a.user_id == user.user_id]
    assert (account.granted, account.used, faults_of(account)) == (TERMS.initial_credits + 1, 1, [])

    async def grant() -> None:
        with refused(Code.SERVICE_UNAVAILABLE):
            await database.grant_credits(user.user_id, 1)

    with locked(postgres, user):
        async with anyio.create_task_group() as group:
            group.start_soon(grant)
            await waits(postgres)
            assert postgres.terminate("wait_event_type = 'Lock'") == 1
    assert (await database.profile(user)).credits == TERMS.initial_credits


async def test_an_exhausted_pool_is_said_in_time(postgres: Postgres) -> None:
    """When all connections are in use, whoever waits too long is told so; then all is well again."""
    user = User(uuid4())
    async with postgres.opened(pool_size=2) as database:
        await database.grant_credits(user.user_id, 1)
        with locked(postgres, user):
            answered, refusals = await in_time(
                [partial(database.reserve_task, user, new_task()) for _ in range(10)]
                + [partial(database.profile, user)] * 10
            )
            # Those that wait for the row leave in the end, and their places go to those behind them.
            assert {refusal.code for refusal in refusals} == {Code.SERVICE_UNAVAILABLE}
            assert len(answered) + len(refusals) == 20
            assert len(refusals) >= 10
        await assert_back(database)
        # Of those that reached the database last nobody knows; the gateway takes such tasks back.
        [account] = [a async for a in database.accounts() if a.user_id == user.user_id]
        assert faults_of(account) == []
        assert account.used <= 2


async def test_the_server_gives_up_with_us(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement that takes too long is ended in the server, and its connection serves on."""
    # That the server is the first is the promise; a busy machine needs more than 0.2 s for it.
    monkeypatch.setattr(connections, "STATEMENT_TIMEOUT_S", SHORT_STATEMENT_TIMEOUT_S)
    user = User(uuid4())
    async with postgres.opened() as database:
        await database.grant_credits(user.user_id, 1)
        before = sessions(postgres)
        with locked(postgres, user):
            with anyio.fail_after(IN_TIME_S), refused(Code.SERVICE_UNAVAILABLE):
                await database.reserve_task(user, new_task())
            assert postgres.run_as_superuser(WAITING) == [(0,)]
        assert sessions(postgres) == before
        assert (await database.profile(user)).credits == TERMS.initial_credits + 1


async def test_a_primary_that_stepped_down_is_left(
    postgres: Postgres, database: PostgresDatabase
) -> None:
    """A server that writes nothing any more is out for writers, and is left when another takes over."""
    user = User(uuid4())
    await assert_back(database)
    postgres.run_as_superuser("alter role plain set default_transaction_read_only = on")
    postgres.terminate()
    for _ in range(2):
        with anyio.fail_after(IN_TIME_S), refused(Code.SERVICE_UNAVAILABLE):
            await database.reserve_task(user, new_task())
    assert (await database.profile(user)).credits == TERMS.initial_credits
    # The sessions that there are stay read-only, as those with the old primary do.
    postgres.run_as_superuser("alter role plain reset default_transaction_read_only")
    await assert_back(database)
    assert not (await database.reserve_task(user, new_task())).replayed


async def test_a_cancelled_call_leaves_a_good_connection(postgres: Postgres) -> None:
    """Callers who go away in the middle take no connection with them."""
    user = User(uuid4())
    async with postgres.opened(pool_size=1) as database:
        await database.grant_credits(user.user_id, 100)
        before = sessions(postgres)
        for checkpoints in range(20):
            async with anyio.create_task_group() as group:
                # One has the connection, the others wait for it.
                for _ in range(5):
                    group.start_soon(database.reserve_task, user, new_task())
                for _ in range(checkpoints):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
        await assert_back(database)
        assert sessions(postgres) == before


async def test_calls_that_asyncio_cancels_leave_every_connection(postgres: Postgres) -> None:
    """No shield of anyio's stops that: some end in the middle, and the pool is none the poorer."""
    random, size, user = Random(1), 3, User(uuid4())
    async with postgres.opened(pool_size=size) as database:
        await database.grant_credits(user.user_id, 100)

        async def cancelled(call: asyncio.Task[object]) -> None:
            # Wherever it is then, and also while it deals with that.
            await asyncio.sleep(random.random() * 0.01)
            for _ in range(random.randint(1, 3)):
                call.cancel()
                await asyncio.sleep(0)

        for _ in range(100):
            some = [asyncio.create_task(database.profile(user)) for _ in range(4 * size)]
            await asyncio.gather(*map(cancelled, some))
            await asyncio.gather(*some, return_exceptions=True)
        with locked(postgres, user):
            holding = [
                asyncio.create_task(database.reserve_task(user, new_task())) for _ in range(size)
            ]
            await until(lambda: postgres.run_as_superuser(WAITING) == [(size,)])
        for each in holding:
            assert not (await each).replayed


async def test_a_start_does_not_wait_for_the_database(postgres: Postgres) -> None:
    """A gateway starts while its database is down, and serves when it is there."""
    with stopped(postgres, FaultProxy("127.0.0.1", 1)), anyio.fail_after(IN_TIME_S):
        opening = postgres.opened()
        database = await opening.__aenter__()
    try:
        await assert_back(database)
    finally:
        await opening.__aexit__(None, None, None)


async def test_no_password_is_said(
    postgres: Postgres, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither the right one nor a wrong one, in no log of anybody's, no error and no representation."""
    wrong, texts = "wr0ng-and-l0ng", list[str]()
    with caplog.at_level(logging.DEBUG):
        async with postgres.opened() as database:
            await assert_back(database)
            with stopped(postgres, FaultProxy("127.0.0.1", 1)):
                texts += await said(database)
        async with postgres.opened(url=postgres.url.replace(postgres.password, wrong)) as database:
            texts += await said(database)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("s3edge")]
    assert any("password authentication failed" in line for line in ours)
    assert any("password authentication failed" in text for text in texts)
    for text in [*texts, caplog.text, *capfd.readouterr()]:
        assert postgres.password not in text
        assert wrong not in text


async def said(database: PostgresDatabase) -> list[str]:
    """Return all that a database that is out says of itself."""
    with pytest.raises(EdgeError) as raised:
        await database.check()
    findings = [finding.message async for finding in database.examine()]
    return [repr(database), repr(vars(database)), str(raised.value), repr(raised.value), *findings]
