"""
Segmentation inside a Django project that has its own users.

The host signs people in by a session token of its own; s3edge is mounted under ``/segmentation`` and
asks the host who is calling. Everything else is the embedded default, or what the environment says. A
project of one file, so that it can be read at once; run it from this folder with::

    gunicorn --threads 8 django_app:application
"""

import logging
import os
from uuid import UUID

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

# In the place of the host's own table.
SESSIONS = {
    "ada-session": User(UUID("6b6f2c1e-1111-4111-8111-111111111111"), Tier.PRO),
    "bob-session": User(UUID("6b6f2c1e-2222-4222-8222-222222222222")),
}


class SessionAuthenticator:
    """The ``Authenticator`` port over the host's sessions."""

    async def authenticate(self, token: str) -> User:
        """Return the session's user."""
        # On the event loop that serves everybody: ask a model by ``await Session.objects...afirst()``.
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


def front_page(_: HttpRequest) -> HttpResponse:
    """Answer as the host always did."""
    return HttpResponse(f"The host's own page; segmentation is at {PREFIX}")


urlpatterns = [path("", front_page)]

# A project of many files has these in its settings.py, and what follows in its wsgi.py.
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"])

# Beside Django and not behind it, so that bodies reach s3edge as they come. Of eight threads four may
# wait.
edge = create_app(deployment.web, max_waits=4)

application = DispatcherMiddleware(get_wsgi_application(), {PREFIX: edge})
