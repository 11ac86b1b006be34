"""Counts in a Redis or Valkey that all gateways share."""

import logging
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import anyio
import redis.exceptions
from attrs import field, frozen
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from redis.asyncio import BlockingConnectionPool, Connection, SSLConnection

from s3edge.errors import Code, EdgeError, unavailable
from s3edge.ports import RateLimiter, Wiring
from s3edge.values import Allowance, RateLimit
from s3edge_limits.counting import count, probe
from s3edge_limits.rest import Rest


KEY_PREFIX = "s3edge:sliding-window"
"""Names the strategy: another one keeps other types of values, and must not meet these."""

MAX_CONNECTIONS = 32
"""Of one process; further requests wait for one of them."""

STEP_TIMEOUT_S = 0.5
"""How long a free connection, connecting, and each answer may take."""

TIMEOUT_S = 1.0
"""How long one request may wait for its count, with all its steps."""

DEFAULT_PORT = 6379

_USAGE = (
    "write redis://host:6379/0 or, with TLS, rediss://host:6379/0 (valkey:// and valkeys:// are the"
    " same), with user:password@ before the host if it asks for them and with %2F for a slash,"
    " %40 for an at sign, %23 for a hash in the password; nothing else may be in it"
)
_DATABASE = re.compile(r"/?|/(\d{1,5})")

_log = logging.getLogger(__name__)


@frozen
class RedisAddress:
    """
    Where a store is.

    Attributes:
        host: Its name or address.
        port: Of TCP.
        database: Its number.
        username: Who to be, if it asks.
        password: The same.
        is_encrypted: Whether it is reached over TLS, with a certificate that this machine trusts.
    """

    host: str
    port: int
    database: int
    username: str | None
    password: str | None = field(repr=False)
    is_encrypted: bool


class RedisRateLimiter:
    """
    Counts in Redis or Valkey; an asynchronous context manager that closes its connections.

    A hit is one script, which is one step for everybody who uses the store; the windows begin with a
    subject's first request, by the store's clock alone. A second script reads what is left.

    A store that is down is noticed when it is asked, and it rests then: see ``rest``.

    Args:
        address: Where the store is.
    """

    def __init__(self, address: RedisAddress) -> None:
        self._pool = _pool(address)
        self._counter = SlidingWindowCounterRateLimiter(
            RedisStorage(
                "redis://",  # where it is, only the pool knows
                implementation="redispy",
                wrap_exceptions=True,
                key_prefix=KEY_PREFIX,
                connection_pool=self._pool,  # type: ignore[arg-type] # it documents it so
            )
        )
        self._rest = Rest(time.monotonic)

    async def __aenter__(self) -> Self:
        """Open no connection yet: a store that is down must not keep a gateway from starting."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection; a store that does not take leave is left without."""
        try:
            await self._pool.aclose()
        except (redis.exceptions.RedisError, OSError) as failure:
            # All were told to close. Over TLS the other side has to answer that, and the event loop drops
            # what waits for it in vain.
            _log.warning(
                "connections to the store of the rate limits could not be closed in an orderly way: %s",
                type(failure).__name__,
            )

    async def hit(self, subject: str, limit: RateLimit) -> Allowance:
        """Implement ``RateLimiter``."""
        with self._rest.request(), _within_time():
            return await count(self._counter, subject, limit)

    async def check(self) -> None:
        """Implement ``Checked``; asks the store also while it rests."""
        with _within_time():
            await probe(self._counter)


def from_url(url: str, wiring: Wiring) -> RateLimiter:  # noqa: ARG001 - the factories' signature
    """
    Return the limiter of a ``redis:``, ``rediss:``, ``valkey:`` or ``valkeys:`` setting.

    Raises:
        ValueError: Says how to write it, and holds nothing of what was written.
    """
    return RedisRateLimiter(parse_address(url))


def parse_address(url: str) -> RedisAddress:
    """
    Return what a URL says.

    Raises:
        ValueError: As ``from_url``.
    """
    try:
        parts = urlsplit(url)
        port = DEFAULT_PORT if parts.port is None else parts.port
    except ValueError:
        # The library's own words may quote a part of the password.
        raise ValueError(_USAGE) from None
    database = _DATABASE.fullmatch(parts.path)
    if not parts.hostname or not port or database is None or parts.query or parts.fragment:
        raise ValueError(_USAGE)
    return RedisAddress(
        host=parts.hostname,
        port=port,
        database=int(database[1] or 0),
        username=unquote(parts.username or "") or None,
        password=unquote(parts.password or "") or None,
        is_encrypted=parts.scheme in {"rediss", "valkeys"},
    )


def _pool(address: RedisAddress) -> BlockingConnectionPool:
    tls: Mapping[str, Any] = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    # Nothing is repeated: a hit that was not answered may have been counted.
    return BlockingConnectionPool(
        max_connections=MAX_CONNECTIONS,
        timeout=STEP_TIMEOUT_S,
        connection_class=SSLConnection if address.is_encrypted else Connection,
        host=address.host,
        port=address.port,
        db=address.database,
        username=address.username,
        password=address.password,
        socket_connect_timeout=STEP_TIMEOUT_S,
        socket_timeout=STEP_TIMEOUT_S,
        socket_keepalive=True,
        **(tls if address.is_encrypted else {}),
    )


@contextmanager
def _within_time() -> Iterator[None]:
    """Give a request to the store its time, and turn what goes wrong into an ``EdgeError``."""
    try:
        with anyio.fail_after(TIMEOUT_S):
            yield
    except StorageError as error:
        raise _edge_error(error.storage_error) from error
    except (TimeoutError, OSError) as error:
        raise _edge_error(error) from error


def _edge_error(error: Exception) -> EdgeError:
    """Say what is wrong in our words: a server's may repeat a password that it was sent."""
    exceptions = redis.exceptions
    if isinstance(error, TimeoutError | exceptions.TimeoutError):
        what = "did not answer in time"
    elif isinstance(error, exceptions.AuthenticationError | exceptions.NoPermissionError):
        what = "refuses the user and password that it is given, or what that user asks of it"
    elif isinstance(error.__context__, ssl.SSLError):
        what = "cannot be reached over TLS: its certificate is not trusted, or it speaks none"
    elif isinstance(error, OSError | exceptions.ConnectionError):
        what = "cannot be reached"
    else:
        what = f"answered with an error ({type(error).__name__})"
    message = f"The store of the rate limits {what}."
    if type(error) is exceptions.ResponseError:
        # About one key, such as one that holds something else. What is about the store is a subclass.
        return EdgeError(Code.SERVICE_UNAVAILABLE, message)
    return unavailable(message)
