"""
What a flow asks of the world, and what it hears back: the border between deciding and doing.

A flow is a generator. It yields an effect, a driver performs it and sends the outcome in, or throws what
went wrong. So every call is written once, knows no HTTP library and no colour, and a test can play the
driver.
"""

from collections.abc import AsyncIterable, Awaitable, Callable, Generator, Iterator, Mapping
from typing import IO, Any, Generic, Protocol, TypeAlias, TypeVar

from attrs import field, frozen


T = TypeVar("T")


class Body(Protocol):
    """A request's body that is streamed, and streamed again when the request is repeated."""

    @property
    def size_bytes(self) -> int:
        """How long it is."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """Yield it from its beginning."""
        ...

    def sent(self, total_bytes: int) -> None:
        """Take note that so many bytes of this attempt have been handed to the network."""
        ...


@frozen
class HttpCall:
    """
    One HTTP request; the outcome is an ``HttpReply``.

    Attributes:
        method: In upper case.
        url: Absolute; may be signed, so it is never shown.
        headers: Whatever is sent besides what HTTP itself needs.
        body: The whole body, a streamed one, or ``None``.
        connect_s: How long connecting may take, in seconds.
        read_s: How long the other side may be silent, in seconds.
        deadline: When it all must have ended, on the monotonic clock.
        max_bytes: How long an answer may be.
        follows_redirects: Whether redirects are followed; never with a token.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | Body | None = field(repr=False)
    connect_s: float
    read_s: float
    deadline: float
    max_bytes: int
    follows_redirects: bool = False


@frozen
class HttpReply:
    """
    The answer to an ``HttpCall``.

    Attributes:
        status: The status code.
        headers: By lower-case name; repeated ones joined by a comma.
        body: The whole body; empty where it came compressed, which is not read.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@frozen
class Sleep:
    """Let so many seconds pass; the outcome is ``None``."""

    seconds: float


@frozen
class Ask(Generic[T]):
    """Call the user's function, and await what it returns if need be; the outcome is its value."""

    function: Callable[[], T | Awaitable[T]]


@frozen
class Work(Generic[T]):
    """Call a function that reads files or computes, off the event loop; the outcome is its value."""

    function: Callable[[], T]


@frozen
class Gather:
    """Write what an asynchronous iterator yields to a file; the outcome is ``None``."""

    chunks: AsyncIterable[bytes]
    write: Callable[[bytes], object]


Effect: TypeAlias = HttpCall | Sleep | Ask[Any] | Work[Any] | Gather
Flow: TypeAlias = Generator[Effect, Any, T]
Spool: TypeAlias = IO[bytes]


def send(call: HttpCall) -> Flow[HttpReply]:
    """
    Send a request.

    Raises:
        ConnectionFailed: There was no answer, or half of one.
        TimedOut: The answer did not come in time.
    """
    reply: HttpReply = yield call
    return reply


def sleep(seconds: float) -> Flow[None]:
    """Let so many seconds pass."""
    yield Sleep(seconds)


def ask(function: Callable[[], T | Awaitable[T]]) -> Flow[T]:
    """Return what the user's function says."""
    value: T = yield Ask(function)
    return value


def work(function: Callable[[], T]) -> Flow[T]:
    """Return what a function makes that would hold up an event loop."""
    value: T = yield Work(function)
    return value
