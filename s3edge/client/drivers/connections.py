"""Whose connections a call is sent over: a process has its own, and a forked one never its parent's."""

import os
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import httpx

from s3edge.client.errors import ConfigurationError


H = TypeVar("H", bound=httpx.Client | httpx.AsyncClient)

MAX_CONNECTIONS = 100
"""A client's; calls beyond wait for one, as long as connecting may take."""

_LIMITS = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=20)

FORKED = (
    "This client's transport= was used before the process forked, and its connections are the parent's;"
    " make a client in each process."
)


class Connections(Generic[H]):
    """
    What sends a client's requests, in each process that has the client.

    After a fork both processes hold the same sockets, and would read each other's answers. So the child
    begins anew, and leaves its parent's connections alone: closing them might end TLS for the parent.

    Args:
        new: The HTTP library's client, of either colour.
        transport: Sends the requests; by default over the network.
    """

    def __init__(
        self,
        new: Callable[..., H],
        transport: httpx.BaseTransport | httpx.AsyncBaseTransport | None,
    ) -> None:
        self._new = new
        self._is_given = transport is not None
        self._was_used = False
        self._by_process: dict[int, H] = {
            os.getpid(): self._new(transport=transport, limits=_LIMITS)
        }

    def get(self) -> H:
        """
        Return what sends a request from this process.

        Raises:
            ConfigurationError: It is the user's transport, which another process has used.
        """
        process = os.getpid()
        own = self._by_process.get(process)
        if own is None:
            if self._is_given and self._was_used:
                raise ConfigurationError(FORKED)
            made = (
                next(iter(self._by_process.values()))
                if self._is_given
                else self._new(limits=_LIMITS)
            )
            # Threads may come here at once: all get the first one's.
            own = self._by_process.setdefault(process, made)
        self._was_used = True
        return own

    def opened(self) -> Iterator[H]:
        """Yield what this process is to close."""
        own = self._by_process.get(os.getpid())
        if own is not None:
            yield own
