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
from uuid import UUID

import anyio
import procrastinate
import psycopg
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from procrastinate.retry import BaseRetryStrategy, RetryDecision

from s3edge.errors import EdgeError, unavailable
from s3edge.ports import Finding, Wiring
from s3edge.rules.lifecycle import retry_delay_s
from s3edge.values import Task
from s3edge_postgres.database import PostgresDatabase
from s3edge_postgres.queue_connector import QueueConnector, cause_of
from s3edge_postgres.queue_worker import STALLED_S, run_queue_worker


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

RESTART_DELAY_S = 1.0
"""How long to wait before a worker that ended by itself begins anew; twice as long each time it does."""

MAX_RESTART_DELAY_S = 10.0
"""How long at the most; a worker that went well for this long waits ``RESTART_DELAY_S`` again."""

SAY_EVERY_S = 30.0
"""How often a worker says that it still waits for its database."""

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
        message = (
            f"{workers} at work"
            if workers
            else "none is at work now; start: s3edge worker, or s3edge inference work at the model"
        )
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
        """Run a worker, and another one when it ends by itself, until told to stop."""
        delay_s = RESTART_DELAY_S
        while not stop.is_set():
            began_at = anyio.current_time()
            failure = await self._run_worker(run, queue, concurrency, grace_s, stop)
            if failure is None and stop.is_set():
                return
            reason = "it stopped by itself"
            if failure is not None:
                reason = f"its database failed: {cause_of(failure)}"
            if stop.is_set():
                _log.warning("a worker did not stop in an orderly way, because %s", reason)
                return
            if anyio.current_time() - began_at >= MAX_RESTART_DELAY_S:
                delay_s = RESTART_DELAY_S
            _log.warning("a worker begins anew in %g s, because %s", delay_s, reason)
            with anyio.move_on_after(delay_s):
                await stop.wait()
            delay_s = min(2 * delay_s, MAX_RESTART_DELAY_S)
            await self._until_usable(stop)

    async def _run_worker(
        self, run: Run, queue: str, concurrency: int, grace_s: float, stop: anyio.Event
    ) -> Exception | None:
        """Run one worker to its end; return how its database failed, if it did."""
        connector = QueueConnector(self._database.address)
        app = self._app(connector, run)
        try:
            await run_queue_worker(app, connector.failed, queue, concurrency, grace_s, stop)
        except (ConnectorException, psycopg.Error) as error:
            return connector.failure or error
        return connector.failure

    def _app(self, connector: procrastinate.PsycopgConnector, run: Run) -> procrastinate.App:
        """Return an application whose jobs are ours."""
        app = procrastinate.App(connector=connector)

        @app.task(name=DISPATCH_JOB, queue=TASKS, retry=_UntilItEnds())
        async def dispatch(task_id: str) -> None:
            await self._dispatch(UUID(task_id), run)

        # With a priority, so that it is found before tasks in the index that both queues share.
        @app.periodic(cron=UPKEEP_CRON)
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


async def _revive(app: procrastinate.App, job: Job) -> None:
    """
    Give a job of a dead worker back to the queue; upkeep comes round by itself.

    Another worker's upkeep may be quicker, or the job may have ended after all: the connector says so.
    """
    if job.task_name == UPKEEP_JOB:
        await app.job_manager.finish_job(job, Status.FAILED, delete_job=True)
        return
    _log.warning("the worker of job %s is gone; the job is to go to another one", job.id)
    await app.job_manager.retry_job(job)


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
