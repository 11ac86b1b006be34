"""
The ``TaskQueue`` port by procrastinate, in the database of the tasks.

The schema's ``s3edge.reserve_task`` writes the job in the reservation's own transaction. A worker that
takes it leases the task as its next attempt, so whatever the queue hands out twice is recorded once.

Nothing is forgotten: a job whose task could not be brought to its end is tried again; one whose worker
died is noticed by the worker's heartbeat and given to another; an open task that has no job gets one.
"""

import asyncio
import logging
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import anyio
import procrastinate
import psycopg
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from psycopg_pool import AsyncConnectionPool

from s3edge.errors import EdgeError, unavailable
from s3edge.ports import Finding, Wiring
from s3edge.rules.lifecycle import HEARTBEAT_S, LEASE_S, retry_delay_s
from s3edge.values import Task
from s3edge_postgres.address import CONNECT_TIMEOUT_S, PostgresAddress
from s3edge_postgres.connections import deadline, session_options
from s3edge_postgres.database import PostgresDatabase
from s3edge_postgres.queue_schema import SCHEMA
from s3edge_postgres.refusals import in_brief
from s3edge_postgres.time_limit import TimeLimit


TASKS = "s3edge"
"""The queue of tasks; the name is the migrations' as well."""

UPKEEP = "s3edge_upkeep"
"""The queue of what keeps the other one in order; it has a worker of its own, that is never busy."""

DISPATCH_JOB = "s3edge.dispatch"
UPKEEP_JOB = "s3edge.upkeep"

UPKEEP_CRON = "* * * * * */5"
"""Every 5 seconds, once for all workers; the sixth field is procrastinate's."""

TIDY_JOB = "s3edge.tidy"

TIDY_CRON = "7 * * * *"
"""Every hour: jobs that failed, which are none of ours, are of no use after ``KEPT_HOURS``."""

KEPT_HOURS = 24

STALLED_S = LEASE_S
"""After how many seconds without a heartbeat a worker is taken for dead, as with leases."""

POLL_S = 2.0
"""How often a worker looks for jobs that no notification told of: those that were due only later."""

RESTART_DELAY_S = 1.0
"""How long to wait before a worker that lost its database begins anew."""

SAY_EVERY_S = 30.0
"""How often a worker says that it still waits for its database."""

CONNECTIONS = 4
"""How many connections the queue itself uses, besides one for each of the two listeners."""

Run = Callable[[Task], Awaitable[object]]

_log = logging.getLogger(__name__)


class ProcrastinateQueue:
    """
    Workers' side of the queue.

    Args:
        database: Where the tasks and the jobs are; open while ``work`` runs.
    """

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def work(self, run: Run, *, concurrency: int, grace_s: float, stop: anyio.Event) -> None:
        """Implement ``TaskQueue``."""
        await self._until_usable(stop)
        async with anyio.create_task_group() as group:
            for queue, jobs_at_once in ((TASKS, concurrency), (UPKEEP, 1)):
                group.start_soon(self._keep_working, run, queue, jobs_at_once, grace_s, stop)

    async def check(self) -> None:
        """Implement ``Checked``."""
        if not await self._database.has_queue():
            raise unavailable("the queue's tables are not there; run: s3edge migrate")

    async def examine(self) -> AsyncIterator[Finding]:
        """Implement ``Examinable``."""
        try:
            # Each process has one for either queue.
            workers = await self._database.workers() // 2
        except EdgeError:
            return  # the check has said why
        message = f"{workers} at work" if workers else "none is at work now; start: s3edge worker"
        yield Finding("workers", ok=True, message=message)

    async def _until_usable(self, stop: anyio.Event) -> None:
        """Wait for the database and its tables; say what is missing, now and then."""
        said_at = -math.inf
        while not stop.is_set():
            try:
                await self._database.check()
                await self.check()
            except EdgeError as error:
                if anyio.current_time() - said_at >= SAY_EVERY_S:
                    said_at = anyio.current_time()
                    _log.warning("no task can be taken yet: %s", error.message)
            else:
                return
            with anyio.move_on_after(RESTART_DELAY_S):
                await stop.wait()

    async def _keep_working(
        self, run: Run, queue: str, concurrency: int, grace_s: float, stop: anyio.Event
    ) -> None:
        """Run a worker, and another one when it fails, until told to stop."""
        while not stop.is_set():
            try:
                connector = _Connector(self._database.address)
                app = self._app(connector, run)
                await _work(app, connector.failed, queue, concurrency, grace_s, stop)
            except (ConnectorException, psycopg.Error) as error:
                _log.warning("a worker begins anew, because its database failed: %s", _cause(error))
                with anyio.move_on_after(RESTART_DELAY_S):
                    await stop.wait()
            await self._until_usable(stop)

    def _app(self, connector: procrastinate.PsycopgConnector, run: Run) -> procrastinate.App:
        """Return an application whose jobs are ours."""
        app = procrastinate.App(connector=connector)

        @app.task(name=DISPATCH_JOB, queue=TASKS, retry=_UntilItEnds())
        async def dispatch(task_id: str) -> None:
            await self._dispatch(UUID(task_id), run)

        @app.periodic(cron=UPKEEP_CRON)
        # Before tasks in the index that both queues share, however many wait.
        @app.task(name=UPKEEP_JOB, queue=UPKEEP, queueing_lock=UPKEEP_JOB, priority=1)
        async def upkeep(timestamp: int) -> None:  # noqa: ARG001 - procrastinate's signature
            await self._keep_up(app)

        @app.periodic(cron=TIDY_CRON)
        @app.task(name=TIDY_JOB, queue=UPKEEP, queueing_lock=TIDY_JOB)
        async def tidy(timestamp: int) -> None:  # noqa: ARG001 - as above
            await app.job_manager.delete_old_jobs(
                KEPT_HOURS, include_failed=True, include_aborted=True
            )

        return app

    async def _dispatch(self, task_id: UUID, run: Run) -> None:
        try:
            task = await self._database.take_task(task_id)
            if task is not None:
                await run(task)
        except EdgeError as error:
            _log.warning("task %s goes back to the queue: %s", task_id, error)
            raise
        except Exception:
            _log.exception("task %s goes back to the queue", task_id)
            raise

    async def _keep_up(self, app: procrastinate.App) -> None:
        """Give dead workers' jobs to others, end what is overdue, queue what has no job."""
        for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_S):
            await _revive(app, job)
        # Each by itself: what keeps one from being done need not keep the other.
        try:
            for task_id in await self._database.settle_overdue():
                _log.warning("task %s was overdue; it ends in error and is refunded", task_id)
        except EdgeError as error:
            _log.warning("overdue tasks have to wait: %s", error)
        try:
            forgotten = await self._database.enqueue_forgotten()
        except EdgeError as error:
            _log.warning("tasks without a job have to wait: %s", error)
        else:
            if forgotten:
                _log.warning("%d open tasks had no job; they are queued", forgotten)


class _UntilItEnds(BaseRetryStrategy):
    """
    Tries a task again until it has ended, by its deadline at the latest.

    What fails for good is recorded by the job itself; what is left is a database that could not be told,
    or a worker that was asked to stop and gives the job to another at once.
    """

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        if isinstance(exception, ValueError | TypeError):
            return None  # its arguments name no task; an open task that has no job gets a new one
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision(retry_in={"seconds": 0})
        delay_s = retry_delay_s(job.attempts + 1, random.random())  # noqa: S311 - spreads retries
        return RetryDecision(retry_in={"milliseconds": round(delay_s * 1000)})


class _Connector(procrastinate.PsycopgConnector):
    """
    Connections that notice when something could not be written.

    A job whose end was not recorded stays with its worker for as long as that one lives. So it may not
    live on: another worker, or this process's next one, takes over what it left.

    Args:
        address: Of the database.

    Attributes:
        failed: Set when the database did not take what a worker had to tell it.
    """

    def __init__(self, address: PostgresAddress) -> None:
        options = session_options(address)
        # The library has its own.
        del options["row_factory"], options["autocommit"]
        super().__init__(
            pool_factory=_pool,
            kwargs=options,
            configure=_use_schema,
            min_size=1,
            max_size=CONNECTIONS,
            timeout=LEASE_S,
        )
        self.failed = anyio.Event()

    async def execute_query_async(self, query: Any, **arguments: Any) -> None:
        """Run a statement that returns nothing: the record of a job's end, a heartbeat."""
        try:
            await super().execute_query_async(query, **arguments)
        except ConnectorException as error:
            if isinstance(error.__cause__, psycopg.errors.RaiseException):
                # Another worker, which took this one for dead, has said of the job what there is to say.
                _log.info("a job is not this worker's any more")
                return
            self.failed.set()
            raise


class _Pool(AsyncConnectionPool[psycopg.AsyncConnection[Any]]):
    """Lends connections for as long as a call may take: a server that fell silent is not waited for."""

    @asynccontextmanager
    async def connection(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - the pool's own signature
    ) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Lend a connection."""
        async with super().connection(timeout) as connection:
            with TimeLimit(connection, deadline()):
                yield connection


def _pool(**options: Any) -> _Pool:
    return _Pool(**{**options, "check": _check_in_time})


async def _check_in_time(connection: psycopg.AsyncConnection[Any]) -> None:
    with TimeLimit(connection, anyio.current_time() + CONNECT_TIMEOUT_S):
        await AsyncConnectionPool.check_connection(connection)


async def _work(
    app: procrastinate.App,
    failed: anyio.Event,
    queue: str,
    concurrency: int,
    grace_s: float,
    stop: anyio.Event,
) -> None:
    """
    Run one worker until told to stop, or until its database fails; then let its jobs end in time.

    Raises:
        ConnectorException: The database failed.
        psycopg.Error: The same.
    """
    ends = [asyncio.create_task(event.wait()) for event in (stop, failed)]
    opening: asyncio.Task[Any] = asyncio.create_task(app.open_async().__aenter__())
    try:
        await asyncio.wait([opening, *ends], return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            return
        opening.result()
        worker = asyncio.create_task(
            app.run_worker_async(
                queues=[queue],
                name=queue,
                concurrency=concurrency,
                install_signal_handlers=False,
                fetch_job_polling_interval=POLL_S,
                shutdown_graceful_timeout=grace_s,
                update_heartbeat_interval=HEARTBEAT_S,
                stalled_worker_timeout=STALLED_S,
                delete_jobs="successful",
            )
        )
        try:
            await asyncio.wait([worker, *ends], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _finished(worker)
    finally:
        for task in (opening, *ends):
            task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([opening, *ends])
            await app.close_async()


async def _finished(worker: asyncio.Task[None]) -> None:
    """Have a worker stop in its orderly way, which a cancellation asks for, once."""
    worker.cancel()
    with anyio.CancelScope(shield=True):
        await asyncio.wait([worker])
    if not worker.cancelled():
        worker.result()


async def _revive(app: procrastinate.App, job: Job) -> None:
    """Give a job of a dead worker back to the queue; upkeep comes round by itself."""
    try:
        if job.task_name == UPKEEP_JOB:
            await app.job_manager.finish_job(job, Status.FAILED, delete_job=True)
            return
        await app.job_manager.retry_job(job)
    except ConnectorException as error:
        # Another worker's upkeep may have been quicker, or the job has ended after all.
        _log.info("job %s needs no reviving: %s", job.id, _cause(error))
        return
    _log.warning("job %s goes to another worker, because its own has died", job.id)


async def _use_schema(connection: psycopg.AsyncConnection[Any]) -> None:
    """Have names mean the queue's own tables; its functions name them without a schema."""
    with TimeLimit(connection, anyio.current_time() + CONNECT_TIMEOUT_S):
        await connection.execute(f"set search_path to {SCHEMA}".encode())
        await connection.commit()


def _cause(error: Exception) -> str:
    """Return what went wrong, without what may hold a password."""
    cause = error.__cause__ if isinstance(error, ConnectorException) else error
    return in_brief(cause) if isinstance(cause, psycopg.Error) else type(cause or error).__name__


def from_wiring(value: str, wiring: Wiring) -> ProcrastinateQueue:  # noqa: ARG001 - the factories' signature
    """
    Return the queue of the ``procrastinate`` setting.

    Raises:
        ValueError: The tasks are in no Postgres that this can reach, or behind a pooler that keeps no
            sessions.
    """
    if not isinstance(wiring.database, PostgresDatabase):
        raise ValueError("a queue needs S3EDGE_DATABASE=postgresql://...")  # noqa: TRY004 - a setting
    if wiring.database.address.is_pooled:
        _log.debug(
            "jobs are only queued here: a worker needs an address without pooler=transaction"
        )
    return ProcrastinateQueue(wiring.database)
