"""
Segmentation inside a FastAPI application that has its own users.

The host signs people in by a session token of its own. One function tells who a token belongs to: the
host's routes ask it by a dependency, and s3edge, mounted under ``/segmentation``, by its authenticator.
Everything else is the embedded default, or what the environment says. Run it from this folder with::

    uvicorn --no-access-log fastapi_app:app
"""

import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from s3edge.client import AsyncClient
from s3edge.config import OwnParts, build, parse_settings
from s3edge.errors import Code, EdgeError
from s3edge.values import Tier, User
from s3edge_starlette import create_app


PREFIX = "/segmentation"

# In the place of the host's own table.
SESSIONS = {
    "ada-session": User(UUID("6b6f2c1e-1111-4111-8111-111111111111"), Tier.PRO),
    "bob-session": User(UUID("6b6f2c1e-2222-4222-8222-222222222222")),
}


async def user_of(session: str) -> User | None:
    """Return whose session it is; ``None`` when it is over."""
    return SESSIONS.get(session)


class SessionAuthenticator:
    """The ``Authenticator`` port over the host's sessions."""

    async def authenticate(self, token: str) -> User:
        """Return the session's user."""
        user = await user_of(token)
        if user is None:
            raise EdgeError(Code.AUTH_INVALID, "The session is over; sign in again.")
        return user

    async def check(self) -> None:
        """Sessions are in this process: there is nothing to ask."""


async def signed_in(given: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    """Return the session of a request to the host's own routes."""
    if await user_of(given.credentials) is None:
        raise HTTPException(401, "The session is over; sign in again.")
    return given.credentials


# One line a request, by s3edge itself; what is signed is not in it.
logging.basicConfig()
logging.getLogger("s3edge").setLevel(logging.INFO)

settings = parse_settings(os.environ)
public_url = settings.public_url or "http://127.0.0.1:8000" + PREFIX
deployment = build(
    settings,
    bound_url=public_url,
    own=OwnParts(authenticator=SessionAuthenticator()),
)
edge = create_app(deployment.web, runs_gateway=False)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """Hold the gateway open: the lifespan of a mounted application is not run."""
    async with deployment.gateway.running():
        yield


app = FastAPI(title="The host", lifespan=lifespan)
app.mount(PREFIX, edge)


class MyMask(BaseModel):
    """
    What the host shows of a result.

    Attributes:
        prompt: What was segmented.
        url: Where the mask can be read for about an hour.
    """

    prompt: str
    url: str


@app.get("/", response_class=PlainTextResponse)
async def front_page() -> str:
    """Answer as the host always did."""
    return f"The host's own page; segmentation is at {PREFIX}"


@app.get("/my-masks")
async def my_masks(session: Annotated[str, Depends(signed_in)]) -> list[MyMask]:
    """List the user's masks, by the SDK on this very application: no socket between."""
    async with AsyncClient.for_app(
        app, base_url=public_url, token=session, runs_lifespan=False
    ) as client:
        return [
            MyMask(prompt=result.text_prompt, url=result.mask_image_url)
            async for result in client.results(status="done", limit_total=20)
            if result.mask_image_url
        ]
