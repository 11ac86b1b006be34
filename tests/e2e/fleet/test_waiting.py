"""Thousands of clients wait for their tasks, and cost the database nothing while they do."""

import json
import os
import re
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import anyio
import psutil
import psycopg
import pytest
from anyio.abc import SocketStream
from attrs import define, field

from s3edge.testing.programs import REQUIRED
from s3edge.testing.standins.fleet import Fleet, FleetPlan
from s3edge_postgres.address import DEFAULT_POOL_SIZE
from tests.e2e.fleet.conftest import StartFleet


CLIENTS = 2000
TASKS = 50

TOGETHER = 100
"""How many clients come at once."""

WAIT_S = 30
"""What the clients ask for, the most that there is: none of them may have run out of it."""

WINDOW_S = 6.0
"""How long statements are counted: longer than what comes round in a gateway, every 5 seconds."""

UPKEEP = 12
"""Statements of a gateway's own in that time: its leases, its backlog, claiming and settling, twice."""

MAX_GROWTH_BYTES = 100 * 1024 * 1024

TRADITIONAL_OPEN_FILES = 1024

TOLD_WITHIN_S = 10.0
"""Far less than ``WAIT_S`` that is left: whoever is told by then was told, and did not just run out."""

SETTINGS = {"S3EDGE_RATE_LIMITS": "off", "S3EDGE_LOG": "warning"}

LOOK = re.compile(r"where t\.id = \$1 and t\.user_id = \$2")
ASK = re.compile(r"where t\.id = any \(\$1::uuid\[\]\) and t\.status in")
EXECUTION = re.compile(r"LOG:  (?:execute|statement)")


@pytest.fixture(autouse=True)
def few_open_files() -> Iterator[Callable[[], None]]:
    """Start servers under the traditional limit; return what raises the test's own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3 * CLIENTS:
        # Where nothing may be left out, going without this test is a failure.
        leave = pytest.fail if REQUIRED in os.environ else pytest.skip
        leave(f"the system allows only {hard} open files; raise the hard limit: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (TRADITIONAL_OPEN_FILES, hard))
    yield partial(resource.setrlimit, resource.RLIMIT_NOFILE, (hard, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@define
class StatementLog:
    """What reached the database since this last looked."""

    log: Path
    _read: int = field(default=0)

    def news(self) -> Counter[str]:
        """Count executions, of them looks at one task, and questions after all that is awaited."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            text = log.read()
        # The last line may not be whole.
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        lines = whole.decode(errors="replace")
        return Counter(
            executions=len(EXECUTION.findall(lines)),
            looks=len(LOOK.findall(lines)),
            asks=len(ASK.findall(lines)),
        )


@define
class Waiting:
    """
    A fleet of one gateway with tasks that do not end, and clients that wait for them.

    Attributes:
        fleet: The fleet.
        token: Of the one user.
        task_ids: The tasks.
        statements: What reaches the database.
        answers: What the clients were told, in the order in which they heard it.
    """

    fleet: Fleet
    token: str
    task_ids: Sequence[UUID]
    statements: StatementLog
    answers: list[tuple[int, str]] = field(factory=list)

    @property
    def process(self) -> psutil.Process:
        """The gateway's."""
        return psutil.Process(self.fleet.gateways[0].pid)

    async def client(self, task_id: UUID, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Ask for a task, say that the question is out, and wait for the answer."""
        address = urlsplit(self.fleet.gateways[0].url)
        assert address.hostname is not None
        assert address.port is not None
        async with await anyio.connect_tcp(address.hostname, address.port) as stream:
            await stream.send(
                f"GET /api/v1/tasks/{task_id}?wait={WAIT_S} HTTP/1.1\r\nHost: gateway\r\n"
                f"Authorization: Bearer {self.token}\r\nConnection: close\r\n\r\n".encode()
            )
            task_status.started()
            head, _, body = (await _everything(stream)).partition(b"\r\n\r\n")
        message = json.loads(body)
        told = message["data"]["status"] if message["success"] else message["error"]["code"]
        self.answers.append((int(head.split()[1]), told))

    async def arrive(self, group: anyio.abc.TaskGroup, count: int) -> None:
        """Have clients come, a hundred at a time, and return when each was looked for once."""
        looks = 0
        self.statements.news()
        for first in range(0, count, TOGETHER):
            numbers = range(first, min(first + TOGETHER, count))
            async with anyio.create_task_group() as asking:
                for number in numbers:
                    task_id = self.task_ids[number % len(self.task_ids)]
                    asking.start_soon(group.start, self.client, task_id)
            with anyio.fail_after(WAIT_S):
                while (looks := looks + self.statements.news()["looks"]) < numbers.stop:
                    await anyio.sleep(0.01)
        # The gateway's own work on the tasks may look at one meanwhile.
        assert looks <= count + len(self.task_ids)

    async def count_statements(self) -> tuple[Counter[str], float]:
        """Return what reaches the database in a while, and how long that was, in seconds."""
        self.statements.news()
        began = time.monotonic()
        await anyio.sleep(WINDOW_S)
        counted = self.statements.news()
        return counted, time.monotonic() - began

    def connections(self) -> int:
        """Return how many connections the gateway has."""
        [(count,)] = self.fleet.query(
            "select count(*) from pg_stat_activity where application_name = 's3edge'"
        )
        return int(count)

    def end_tasks(self) -> None:
        """End all tasks as a worker somewhere else does."""
        for task_id in self.task_ids:
            [(ended,)] = self.fleet.query(
                "select s3edge.complete_task(%s, 'https://images.example/masks/1', '[]', '{}')",
                task_id,
            )
            assert ended

    async def assert_all_are_told(self, count: int) -> float:
        """Check that every client hears that its task is done; return how long it took, in seconds."""
        began = time.monotonic()
        with anyio.fail_after(TOLD_WITHIN_S):
            while len(self.answers) < count:
                await anyio.sleep(0.01)
        assert Counter(self.answers) == {(200, "done"): count}
        return time.monotonic() - began


async def _everything(stream: SocketStream) -> bytes:
    received = b""
    try:
        while True:
            received += await stream.receive()
    except anyio.EndOfStream:
        return received


def begin(fleet: Fleet, image: bytes, tasks: int) -> Waiting:
    """Have a user submit tasks to a GPU that says nothing, and the database log what it is asked."""
    fleet.gpu.control(silent=True)
    token = fleet.token(uuid4())
    with fleet.client(token) as client:
        answer = client.post("/api/v1/upload", files={"file": ("i.png", image, "image/png")})
        order = {"image_id": answer.json()["data"]["image_id"], "text_prompt": "what is bright"}
        submitted = [client.post("/api/v1/segment", json=order).json() for _ in range(tasks)]
    ends_at = time.monotonic() + WAIT_S
    while fleet.gpu.report()["in_flight"] < tasks:
        assert time.monotonic() < ends_at
        time.sleep(0.05)
    superuser = fleet.postgres.database("postgres").url("superuser")
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute("alter system set log_statement = 'all'")
        connection.execute("select pg_reload_conf()")
    task_ids = [UUID(message["data"]["task_id"]) for message in submitted]
    return Waiting(fleet, token, task_ids, StatementLog(fleet.postgres.log))


def test_thousands_wait_and_ask_nothing(
    start_fleet: StartFleet, scene: bytes, few_open_files: Callable[[], None]
) -> None:
    """In little memory, over the connections of one process; and all are told when their tasks end."""
    fleet = start_fleet(FleetPlan(settings=SETTINGS))
    few_open_files()
    waiting = begin(fleet, scene, TASKS)

    async def wait() -> None:
        before = waiting.process.memory_full_info().uss
        async with anyio.create_task_group() as group:
            began = time.monotonic()
            await waiting.arrive(group, CLIENTS)
            arrived_s = time.monotonic() - began
            growth = waiting.process.memory_full_info().uss - before
            counted, _ = await waiting.count_statements()
            connections = waiting.connections()
            assert waiting.answers == []
            waiting.statements.news()
            waiting.end_tasks()
            told_s = await waiting.assert_all_are_told(CLIENTS)
        woken = waiting.statements.news()
        print(  # noqa: T201 - the figures
            f"{CLIENTS} clients came within {arrived_s:.1f} s: {growth / 2**20:.0f} MiB more,"
            f" {counted['executions']} statements in {WINDOW_S:g} s, {connections} connections;"
            f" told within {told_s:.2f} s by {woken['looks']} looks"
        )
        assert growth <= MAX_GROWTH_BYTES
        assert counted["looks"] == counted["asks"] == 0
        assert counted["executions"] <= UPKEEP
        # One more listens.
        assert connections <= DEFAULT_POOL_SIZE + 1
        # Those who wait for the same task look once.
        assert woken["looks"] <= 2 * TASKS

    anyio.run(wait)


def test_ends_are_told_although_the_listener_is_gone(start_fleet: StartFleet, scene: bytes) -> None:
    """What ends while nobody listens is made up for, as soon as somebody does."""
    waiting = begin(start_fleet(FleetPlan(settings=SETTINGS)), scene, 10)

    async def wait() -> None:
        async with anyio.create_task_group() as group:
            await waiting.arrive(group, 100)
            terminated = waiting.fleet.query(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 's3edge' and starts_with(query, 'listen')"
            )
            assert terminated == [(True,)]
            waiting.end_tasks()
            await waiting.assert_all_are_told(100)

    anyio.run(wait)


def test_behind_a_pooler_one_asks_for_all(start_fleet: StartFleet, scene: bytes) -> None:
    """Where nothing can be listened for, there is one query a second, however many wait."""
    plan = FleetPlan(settings=SETTINGS, database_options="?pooler=transaction")
    waiting = begin(start_fleet(plan), scene, 10)

    async def wait() -> None:
        async with anyio.create_task_group() as group:
            await waiting.arrive(group, 100)
            counted, counted_s = await waiting.count_statements()
            assert counted["looks"] == 0
            assert WINDOW_S / 2 <= counted["asks"] <= counted_s + 1
            assert counted["executions"] - counted["asks"] <= UPKEEP
            assert waiting.answers == []
            waiting.end_tasks()
            await waiting.assert_all_are_told(100)

    anyio.run(wait)
