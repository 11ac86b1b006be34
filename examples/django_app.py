"""
Segmentation inside a Django project that has its own users.

The host signs people in by a session token of its own; s3edge is mounted under ``/segmentation`` and
asks the host who is calling. Everything else is the embedded default. A project of one file, so that it
can be read at once; run it from this folder with::

    gunicorn --threads 8 'django_app:create_host()'
"""

from collections.abc import Mapping
from pathlib import Path
from uuid import UUID
from wsgiref.types import WSGIApplication

from attrs import frozen
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from s3edge.config import OwnParts, build, parse_settings
from s3edge.errors import Code, EdgeError
from s3edge.values import Tier, User
from s3edge_wsgi import create_app


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


def front_page(request: HttpRequest) -> HttpResponse:
    """Answer as the host always did."""
    return HttpResponse(
        f"The host's own page; segmentation is at {request.build_absolute_uri(PREFIX)}"
    )


urlpatterns = [path("", front_page)]


def create_host(
    data_dir: Path = Path(".s3edge"), origin: str = "http://127.0.0.1:8000"
) -> WSGIApplication:
    """
    Return the project's WSGI application; a project of many files has it in its ``wsgi.py``.

    Args:
        data_dir: Where the embedded parts keep their files.
        origin: Where the host is reached.
    """
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"])
    deployment = build(
        parse_settings({"S3EDGE_DATA_DIR": str(data_dir)}),
        bound_url=origin + PREFIX,
        own=OwnParts(authenticator=SessionAuthenticator(SESSIONS)),
    )
    # Beside Django and not behind it, so that bodies reach s3edge as they come. Of eight threads four may
    # wait.
    edge = create_app(deployment.web, max_waits=4)
    return DispatcherMiddleware(get_wsgi_application(), {PREFIX: edge})
