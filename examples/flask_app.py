"""
Segmentation inside a Flask application that has its own users.

The host signs people in by a session token of its own; s3edge is mounted under ``/segmentation`` and
asks the host who is calling. Everything else is the embedded default, or what the environment says. Run
it from this folder with::

    gunicorn --threads 8 flask_app:app
"""

import logging
import os
from uuid import UUID

from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from s3edge.config import OwnParts, build, parse_settings
from s3edge.errors import Code, EdgeError
from s3edge.values import Tier, User
from s3edge_wsgi import create_app


PREFIX = "/segmentation"

# In the place of the host's own table.
SESSIONS = {
    "ada-session": User(UUID("6b6f2c1e-1111-4111-8111-111111111111"), Tier.PRO),
    "bob-session": User(UUID("6b6f2c1e-2222-4222-8222-222222222222")),
}


class SessionAuthenticator:
    """The ``Authenticator`` port over the host's sessions."""

    async def authenticate(self, token: str) -> User:
        """Return the session's user."""
        # On the event loop that serves everybody: ask a database by ``await asyncio.to_thread(...)``.
        user = SESSIONS.get(token)
        if user is None:
            raise EdgeError(Code.AUTH_INVALID, "The session is over; sign in again.")
        return user

    async def check(self) -> None:
        """Sessions are in this process: there is nothing to ask."""


# One line a request, by s3edge itself; what is signed is not in it.
logging.basicConfig()
logging.getLogger("s3edge").setLevel(logging.INFO)

deployment = build(
    parse_settings(os.environ),
    bound_url="http://127.0.0.1:8000" + PREFIX,  # where S3EDGE_PUBLIC_URL does not say
    own=OwnParts(authenticator=SessionAuthenticator()),
)

# Beside Flask and not behind it, so that bodies reach s3edge as they come. Of eight threads four may
# wait.
edge = create_app(deployment.web, max_waits=4)

app = Flask(__name__)
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {PREFIX: edge})  # type: ignore[method-assign]


@app.get("/")
def front_page() -> str:
    """Answer as the host always did."""
    return f"The host's own page; segmentation is at {PREFIX}"
