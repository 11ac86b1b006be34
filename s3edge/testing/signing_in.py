"""Clients of one application in this process, each signed in as somebody of a test's choice."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import httpx

from s3edge.client import AsyncClient, Client, Timeout
from s3edge.client.drivers import transport_to
from s3edge.client.session import IN_PROCESS_URL, MAX_RETRIES
from s3edge.testing.clock import ManualClock
from s3edge.testing.deployment import Deployment
from s3edge.values import Tier, User


MOST_AT_ONCE = 100
"""How many calls asynchronous clients make at once; further ones wait."""

TOKEN_LIFETIME_S = 3600.0
"""How long somebody is signed in, as with Supabase by default."""


class SigningIn:
    """
    Makes clients of one application; ``SignIn`` and ``SignInAsync`` are what tests call.

    Args:
        app: ASGI or WSGI.
        base_url: What it takes itself to be reached at.
        deployment: What it serves.
        clock: The time of the clients, and of an ASGI application.
    """

    def __init__(
        self, app: Callable[..., Any], base_url: str, deployment: Deployment, clock: ManualClock
    ) -> None:
        self.base_url = base_url
        self._deployment = deployment
        self._clock = clock
        self._inner = transport_to(app, runs_lifespan=True, new_event_loop=clock.new_event_loop)
        self._pool = ThreadPoolExecutor(MOST_AT_ONCE, "s3edge-calls")
        self.surroundings = clock.surroundings()
        self.transport = _Settled(self._inner, clock)
        self.async_transport = _InThreads(self.transport, self._pool)

    def token(self, user: User | str, tier: Tier | str, credits: int | None) -> str:
        """Sign somebody in; raise ``ValueError`` when their credits are less than none."""
        if credits is not None and credits < 0:
            message = f"nobody has fewer credits than none: {credits}"
            raise ValueError(message)
        if isinstance(user, str):
            user = User(user_id_of(user), Tier(tier))
        if credits is not None:
            self._clock.settle()
            self._deployment.database.set_credits(user.user_id, credits)
        return self._deployment.authenticator.issue(user, TOKEN_LIFETIME_S)

    def close(self) -> None:
        """Stop the application."""
        self._pool.shutdown()
        self._inner.close()


class SignIn:
    """
    Signs somebody in, and returns a ``Client`` of theirs.

    Args:
        signing_in: What all clients share.
    """

    def __init__(self, signing_in: SigningIn) -> None:
        self._signing_in = signing_in

    def __call__(
        self,
        user: User | str,
        *,
        tier: Tier | str = Tier.PRO,
        credits: int | None = None,
        timeout: Timeout | float | None = None,
        max_retries: int = MAX_RETRIES,
    ) -> Client:
        """
        Return a client whose user is signed in for an hour.

        Args:
            user: A name, which is the same user each time; or a ``User``, with a tier of their own.
            tier: ``free``, ``pro`` or ``enterprise``; it decides the limits.
            credits: What they have from now on; by default what they had, or what new users have.
            timeout: As in ``Client``.
            max_retries: As in ``Client``.

        Raises:
            ValueError: There is no such tier, or the credits are less than none.
        """
        return Client(
            base_url=self._signing_in.base_url,
            token=self._signing_in.token(user, tier, credits),
            timeout=timeout,
            max_retries=max_retries,
            transport=self._signing_in.transport,
            surroundings=self._signing_in.surroundings,
        )


class SignInAsync:
    """
    Signs somebody in, and returns an ``AsyncClient`` of theirs.

    Args:
        signing_in: What all clients share.
    """

    def __init__(self, signing_in: SigningIn) -> None:
        self._signing_in = signing_in

    def __call__(
        self,
        user: User | str,
        *,
        tier: Tier | str = Tier.PRO,
        credits: int | None = None,
        timeout: Timeout | float | None = None,
        max_retries: int = MAX_RETRIES,
    ) -> AsyncClient:
        """Return a client, as ``SignIn`` does."""
        return AsyncClient(
            base_url=self._signing_in.base_url,
            token=self._signing_in.token(user, tier, credits),
            timeout=timeout,
            max_retries=max_retries,
            transport=self._signing_in.async_transport,
            surroundings=self._signing_in.surroundings,
        )


def user_id_of(name: str) -> UUID:
    """Return the id of the user whom a test calls by a name."""
    return uuid5(NAMESPACE_URL, f"{IN_PROCESS_URL}/{name}")


class _Settled(httpx.BaseTransport):
    """
    Returns an answer when the deployment has come to rest, so that what follows is no race.

    Clients share it, so that none of them closes what it is made of.

    Args:
        inner: Where requests go.
        clock: Knows when that is.
    """

    def __init__(self, inner: httpx.BaseTransport, clock: ManualClock) -> None:
        self._inner = inner
        self._clock = clock

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
        try:
            content = b"".join(response.iter_raw())
        finally:
            response.close()
        self._clock.settle()
        return httpx.Response(
            response.status_code,
            headers=response.headers.raw,
            stream=httpx.ByteStream(content),
        )


class _InThreads(httpx.AsyncBaseTransport):
    """
    The same for asynchronous clients: the application has an event loop of its own.

    Args:
        inner: Where requests go.
        pool: The threads in which they wait.
    """

    def __init__(self, inner: httpx.BaseTransport, pool: ThreadPoolExecutor) -> None:
        self._inner = inner
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = await request.aread()
        whole = httpx.Request(request.method, request.url, headers=request.headers, content=content)
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, self._inner.handle_request, whole
        )
