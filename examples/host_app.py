"""
Segmentation inside an application that has its own users.

The host signs people in by a session token of its own; s3edge is mounted under ``/segmentation`` and
asks the host who is calling. Everything else is the embedded default. Run it from this folder with::

    uvicorn --factory host_app:create_host
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from attrs import frozen
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from s3edge.config import OwnParts, build, parse_settings
from s3edge.errors import Code, EdgeError
from s3edge.values import Tier, User
from s3edge_starlette import create_app


PREFIX = "/segmentation"

SESSIONS = {
    "ada-session": User(UUID("6b6f2c1e-1111-4111-8111-111111111111"), Tier.PRO),
    "bob-session": User(UUID("6b6f2c1e-2222-4222-8222-222222222222")),
}


@frozen
class SessionAuthenticator:
    """
    The ``Authenticator`` port over the host's sessions.

    Attributes:
        sessions: Who each session token belongs to.
    """

    sessions: Mapping[str, User]

    async def authenticate(self, token: str) -> User:
        """Return the session's user."""
        user = self.sessions.get(token)
        if user is None:
            raise EdgeError(Code.AUTH_INVALID, "The session is over; sign in again.")
        return user

    async def check(self) -> None:
        """Sessions are in this process: there is nothing to ask."""


async def front_page(request: Request) -> PlainTextResponse:
    """Answer as the host always did."""
    return PlainTextResponse(
        f"The host's own page; segmentation is at {request.base_url}{PREFIX[1:]}"
    )


def create_host(
    data_dir: Path = Path(".s3edge"), origin: str = "http://127.0.0.1:8000"
) -> Starlette:
    """
    Return the host application.

    Args:
        data_dir: Where the embedded parts keep their files.
        origin: Where the host is reached.
    """
    deployment = build(
        parse_settings({"S3EDGE_DATA_DIR": str(data_dir)}),
        bound_url=origin + PREFIX,
        own=OwnParts(authenticator=SessionAuthenticator(SESSIONS)),
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        # A mounted application's own lifespan is not run, so the host's holds the gateway open.
        async with deployment.gateway.running():
            yield

    return Starlette(
        routes=[
            Route("/", front_page),
            Mount(PREFIX, create_app(deployment.web, runs_gateway=False)),
        ],
        lifespan=lifespan,
    )
