"""Whose connections a call is sent over: a process has its own, and a forked one never its parent's."""

import os
from collections.abc import Callable, Iterator
from typing import Generic, TypeAlias, TypeVar

import httpx
from attrs import field, frozen

from s3edge.client.errors import ConfigurationError
from s3edge.client.session import origin_of


T = TypeVar("T")
H = TypeVar("H", bound=httpx.Client | httpx.AsyncClient)

MAX_CONNECTIONS = 100
"""A client's; calls beyond wait for one, as long as connecting may take."""

_LIMITS = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=20)

FORKED = (
    "This client's transport= was used before the process forked, and its connections are the parent's;"
    " make a client in each process."
)


@frozen
class Application(Generic[T]):
    """
    An application in this process, in the place of a server.

    What goes to the origin of its address is handed to it, and all else over the network: masks may be in
    a bucket, whose signatures are nothing to tell an application.

    Attributes:
        base_url: What it takes itself to be reached at.
        transport: Hands requests to it.
    """

    base_url: str
    transport: T = field(repr=False)


Transport: TypeAlias = httpx.BaseTransport | Application[httpx.BaseTransport]
AsyncTransport: TypeAlias = httpx.AsyncBaseTransport | Application[httpx.AsyncBaseTransport]


class Connections(Generic[H]):
    """
    What sends a client's requests, in each process that has the client.

    After a fork both processes hold the same sockets, and would read each other's answers. So the child
    begins anew, and leaves its parent's connections alone: closing them might end TLS for the parent.

    Args:
        new: The HTTP library's client, of either colour.
        transport: Sends the requests; by default over the network.
    """

    def __init__(self, new: Callable[..., H], transport: Transport | AsyncTransport | None) -> None:
        self._new = new
        self._process = os.getpid()
        self._app: Application[H] | None = None
        self._by_process: dict[int, H] = {}
        self._is_given = self._was_used = False
        if isinstance(transport, Application):
            # The network's is made when it is needed: it takes 40 ms to read the certificates.
            self._app = Application(transport.base_url, new(transport=transport.transport))
        else:
            self._is_given = transport is not None
            self._by_process[self._process] = new(transport=transport, limits=_LIMITS)

    def to(self, url: httpx.URL | str) -> H:
        """
        Return what sends a request to a URL from this process.

        Raises:
            ConfigurationError: It is the user's transport, which another process has used.
        """
        if self._app is not None and origin_of(str(url)) == origin_of(self._app.base_url):
            return self._app.transport
        process = os.getpid()
        own = self._by_process.get(process)
        if own is None:
            if self._is_given and self._was_used:
                raise ConfigurationError(FORKED)
            made = self._by_process[self._process] if self._is_given else self._new(limits=_LIMITS)
            # Threads may come here at once: all get the first one's.
            own = self._by_process.setdefault(process, made)
        self._was_used = True
        return own

    def opened(self) -> Iterator[H]:
        """Yield what this process is to close."""
        process = os.getpid()
        if process in self._by_process:
            yield self._by_process[process]
        if self._app is not None:
            yield self._app.transport
