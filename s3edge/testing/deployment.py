"""A whole deployment in memory."""

import itertools
from typing import Any
from uuid import UUID, uuid4

from attrs import frozen

from s3edge.gateway import Gateway, GatewayOptions, SystemClock
from s3edge.memory import (
    MemoryAuthenticator,
    MemoryDatabase,
    MemoryObjectStorage,
    MemoryRateLimiter,
    ThresholdBackend,
)
from s3edge.ports import Clock, InferenceBackend, ObjectStorage
from s3edge.testing.clock import ManualClock
from s3edge.testing.clocked_gateway import ClockedGateway, ClockedWebApp
from s3edge.web.app import WebApp
from s3edge.web.http import ServesRoutes


class IncreasingIds:
    """
    Ids of which each is greater than those before it, and random but for that.

    Of tasks that were made at the same time, which is all of them while a ``ManualClock`` stands, lists
    show the one with the greater id first: so they are in the order of asking.
    """

    def __init__(self) -> None:
        self._count = itertools.count(1)

    def new(self) -> UUID:
        """Implement ``Ids``: the count in the first 48 bits, and the rest of a UUID v4."""
        return UUID(int=next(self._count) << 80 | uuid4().int % (1 << 80))


@frozen
class Deployment:
    """
    Everything that serves, with the parts that a test wants at hand.

    Attributes:
        web: The HTTP application, for a door.
        gateway: The ports.
        authenticator: Issues tokens.
        database: Holds credits and tasks.
    """

    web: WebApp
    gateway: Gateway
    authenticator: MemoryAuthenticator
    database: MemoryDatabase


@frozen
class MemoryDeployment(Deployment):
    """
    A deployment whose objects are in memory, too.

    Attributes:
        web: The HTTP application, for a door.
        gateway: The ports.
        authenticator: Issues tokens.
        database: Holds credits and tasks.
        storage: Holds the objects.
    """

    storage: MemoryObjectStorage


def memory_deployment(
    base_url: str, *, clock: Clock | None = None, options: GatewayOptions | None = None
) -> MemoryDeployment:
    """
    Return a deployment of the in-memory ports, built and not started.

    Args:
        base_url: Where its door is reached, with the prefix that it is mounted under.
        clock: Tells the time; by default the machine's.
        options: What an operator would decide; by default no rate limits.
    """
    clock = clock or SystemClock()
    storage = MemoryObjectStorage(base_url, clock)
    built = deployment_on(storage, clock=clock, options=options)
    return MemoryDeployment(built.web, built.gateway, built.authenticator, built.database, storage)


def deployment_on(
    storage: ObjectStorage,
    *,
    clock: Clock,
    options: GatewayOptions | None = None,
    backend: InferenceBackend | None = None,
    initial_credits: int = 100,
    segment_cost: int = 1,
    task_deadline_s: float = 900,
) -> Deployment:
    """
    Return a deployment on any storage, its other ports in memory, built and not started.

    Args:
        storage: Holds the objects; the application serves its routes, if it has any.
        clock: Tells the time. Time-outs and pauses have the event loop's: it is the same where a
            ``ManualClock`` made the loop.
        options: What an operator would decide; by default no rate limits.
        backend: Segments, with the same storage; by default what is brighter than half.
        initial_credits: What a new user has.
        segment_cost: What a segmentation costs.
        task_deadline_s: When an unanswered task is overdue, in seconds.
    """
    authenticator = MemoryAuthenticator(clock)
    database = MemoryDatabase(
        clock,
        initial_credits=initial_credits,
        segment_cost=segment_cost,
        task_deadline_s=task_deadline_s,
    )
    ports: dict[str, Any] = {
        "authenticator": authenticator,
        "storage": storage,
        "database": database,
        "backend": backend or ThresholdBackend(storage),
        "rate_limiter": MemoryRateLimiter(clock),
        "options": options or GatewayOptions(rate_limits=None),
        "clock": clock,
        "ids": IncreasingIds(),
    }
    routes = storage.routes() if isinstance(storage, ServesRoutes) else ()
    if isinstance(clock, ManualClock):
        gateway: Gateway = ClockedGateway(**ports, random=lambda: clock.chance)
        web: WebApp = ClockedWebApp(gateway, extra_routes=routes)
    else:
        gateway = Gateway(**ports)
        web = WebApp(gateway, extra_routes=routes)
    return Deployment(web, gateway, authenticator, database)
