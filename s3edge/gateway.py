"""The ports held together, with the background work that belongs to them."""

import logging
import random
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID, uuid4

import anyio
from attrs import define, field, frozen

from s3edge.dispatcher import Dispatcher
from s3edge.errors import unavailable
from s3edge.ports import (
    INLINE,
    AnnouncesEnds,
    Authenticator,
    Clock,
    Database,
    HasCapacity,
    Ids,
    InferenceBackend,
    Limited,
    ObjectStorage,
    RateLimiter,
)
from s3edge.rules.limits import DEFAULT_RATE_LIMITS, RateLimits
from s3edge.signals import TaskSignals
from s3edge.usecases.dispatch_task import dispatch_task
from s3edge.values import Task


SHUTDOWN_GRACE_S = 10.0
"""How long running tasks may take to end when the process is asked to stop."""

BACKLOG_RETRY_AFTER_S = 10
"""When a client that was refused for the backlog may come back; each gateway looks every 5 seconds."""

NOT_RUNNING = (
    "the gateway is not running; hold `deployment.gateway.running()` open in your lifespan"
)
"""What is most often forgotten where it is mounted: servers do not run a mounted lifespan."""

_log = logging.getLogger(__name__)


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the time, aware and in UTC."""
        return datetime.now(UTC)


class RandomIds:
    """Random ids."""

    def new(self) -> UUID:
        """Return a fresh UUID v4."""
        return uuid4()


@frozen
class GatewayOptions:
    """
    What an operator decides about a gateway.

    Attributes:
        rate_limits: The table of limits; ``None`` for none.
        limits_fail_open: Whether requests pass while the store of the limits is down.
        image_hosts: Further hosts (``name`` or ``name:port``) whose images may be segmented.
        predict_timeout_s: How long one attempt of the model may take, in seconds.
        dispatch_concurrency: How many tasks one process has at the backend at once.
        dispatch: Who dispatches tasks: ``inline``, the gateway itself; or else a queue's workers, whom
            the database tells.
        max_backlog: How many tasks may wait or run, in all, before new ones are refused.
        grace_s: How long running tasks may take when the gateway stops, in seconds.
        max_requests: How many requests one process serves at once; more are refused with 503.
        max_waits: How many long polls one process holds at once, besides.
    """

    rate_limits: RateLimits | None = DEFAULT_RATE_LIMITS
    limits_fail_open: bool = True
    image_hosts: Collection[str] = frozenset()
    predict_timeout_s: float = 120.0
    dispatch_concurrency: int = 64
    dispatch: str = INLINE
    max_backlog: int = 10_000
    grace_s: float = SHUTDOWN_GRACE_S
    max_requests: int = 500
    max_waits: int = 5000


@define
class Gateway:
    """
    Everything that serves requests, whatever the door they come through.

    Use ``running()`` around the time of service: it opens what implements the ports (connection pools
    and the like, whatever is an asynchronous context manager), starts the background dispatch and
    drains it.

    Attributes:
        authenticator: Tells who a token belongs to.
        storage: Holds images and masks.
        database: Holds credits and tasks.
        backend: Runs the model.
        rate_limiter: Counts requests.
        options: What the operator decided.
        clock: Tells the time.
        ids: Makes ids.
        random: Returns a number from 0 to 1; spreads retries.
    """

    authenticator: Authenticator
    storage: ObjectStorage
    database: Database
    backend: InferenceBackend
    rate_limiter: RateLimiter
    options: GatewayOptions = field(factory=GatewayOptions)
    clock: Clock = field(factory=SystemClock)
    ids: Ids = field(factory=RandomIds)
    random: Callable[[], float] = random.random
    signals: TaskSignals = field(init=False, factory=TaskSignals)
    _dispatcher: Dispatcher | None = field(init=False, default=None)
    _has_told_so: bool = field(init=False, default=False)

    @property
    def parts(self) -> Collection[object]:
        """The ports' implementations; those that hold resources are opened with the gateway."""
        return (self.database, self.storage, self.backend, self.rate_limiter, self.authenticator)

    @property
    def is_inline(self) -> bool:
        """Whether this process dispatches tasks by itself."""
        return self.options.dispatch == INLINE

    @property
    def concurrency(self) -> int:
        """How many tasks one process has at the backend at once."""
        allowed = self.options.dispatch_concurrency
        return (
            min(allowed, self.backend.capacity)
            if isinstance(self.backend, HasCapacity)
            else allowed
        )

    def check_running(self) -> None:
        """
        Refuse a request that comes while nothing is open; the first one is told to the operator.

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE``.
        """
        if self._dispatcher is not None:
            return
        if not self._has_told_so:
            self._has_told_so = True
            _log.error("%s", NOT_RUNNING)
        raise unavailable("The gateway is not running; the server's log says what to do.")

    def submit(self, task: Task) -> None:
        """Have a freshly reserved task dispatched in the background; a queue has it already."""
        if not self.is_inline:
            return
        if self._dispatcher is None or not self._dispatcher.submit(task):
            _log.warning("task %s waits for recovery: no room to dispatch it now", task.id)

    def check_backlog(self) -> None:
        """
        Refuse a new task while too many wait.

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE``.
        """
        waiting = 0 if self._dispatcher is None else self._dispatcher.backlog
        if waiting >= self.options.max_backlog:
            raise unavailable(
                "Too many segmentations are queued; try again later.",
                retry_after_s=BACKLOG_RETRY_AFTER_S,
            )

    def disown(self, task_id: UUID) -> None:
        """Have a task taken back whose reservation was not answered, should it exist."""
        if self._dispatcher is not None:
            self._dispatcher.disown(task_id)

    def stop_waiting(self) -> None:
        """Answer all long polls now, because the process is about to stop."""
        self.signals.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Gateway"]:
        """
        Serve within this context: resources open, background work on, drained at the end.

        A gateway runs once, on one event loop.
        """
        async with opened(self.parts):
            for part in self.parts:
                for limitation in part.limitations() if isinstance(part, Limited) else ():
                    _log.warning("%s", limitation)
            dispatcher = Dispatcher(
                self.database,
                self.signals,
                self.dispatch,
                self.concurrency if self.is_inline else 0,
            )
            self._dispatcher = dispatcher
            try:
                async with anyio.create_task_group() as group:
                    dispatcher.start(group)
                    if isinstance(self.database, AnnouncesEnds):
                        group.start_soon(self._hear, self.database)
                    try:
                        yield self
                    finally:
                        self.stop_waiting()
                        with anyio.CancelScope(shield=True):
                            await dispatcher.drain(self.options.grace_s)
                        group.cancel_scope.cancel()
            finally:
                self._dispatcher = None
                with anyio.CancelScope(shield=True):
                    await dispatcher.release()

    async def _hear(self, database: AnnouncesEnds) -> None:
        self.signals.hears_all = True
        try:
            await database.announce_ends(self.signals)
        except Exception:  # noqa: BLE001 - logged with its trace; waiters look by themselves again
            _log.exception("ends of tasks are not announced any more")
        finally:
            self.signals.hears_all = False

    async def dispatch(self, task: Task) -> bool:
        """
        Run one task, which the caller holds, to its end; return whether this call ended it.

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE``; how it ended could not be written down.
        """
        return await dispatch_task(
            task,
            database=self.database,
            storage=self.storage,
            backend=self.backend,
            random=self.random,
            image_hosts=self.options.image_hosts,
            predict_timeout_s=self.options.predict_timeout_s,
        )


@asynccontextmanager
async def opened(parts: Collection[object]) -> AsyncIterator[None]:
    """Open those parts that are resources, in order, and close them in the other."""
    async with AsyncExitStack() as stack:
        for part in parts:
            if isinstance(part, AbstractAsyncContextManager):
                await stack.enter_async_context(part)
        yield
