"""A whole deployment in memory."""

from attrs import frozen

from s3edge.gateway import Gateway, GatewayOptions, SystemClock
from s3edge.memory import (
    MemoryAuthenticator,
    MemoryDatabase,
    MemoryObjectStorage,
    MemoryRateLimiter,
    ThresholdBackend,
)
from s3edge.ports import Clock
from s3edge.web.app import WebApp


@frozen
class MemoryDeployment:
    """
    Everything that serves, with the parts that a test wants at hand.

    Attributes:
        web: The HTTP application, for a door.
        gateway: The ports.
        authenticator: Issues tokens.
        storage: Holds the objects.
        database: Holds credits and tasks.
    """

    web: WebApp
    gateway: Gateway
    authenticator: MemoryAuthenticator
    storage: MemoryObjectStorage
    database: MemoryDatabase


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
    authenticator = MemoryAuthenticator(clock)
    database = MemoryDatabase(clock)
    gateway = Gateway(
        authenticator=authenticator,
        storage=storage,
        database=database,
        backend=ThresholdBackend(storage),
        rate_limiter=MemoryRateLimiter(clock),
        options=options or GatewayOptions(rate_limits=None),
        clock=clock,
    )
    web = WebApp(gateway, extra_routes=storage.routes())
    return MemoryDeployment(web, gateway, authenticator, storage, database)
