"""The plugin's own fixtures, over both doors."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from PIL import Image

from s3edge.testing import Deployment, ManualClock
from s3edge.testing.pytest_plugin import (
    pytest_configure,
    s3edge_backend,
    s3edge_base_url,
    s3edge_client,
    s3edge_clock,
    s3edge_deployment,
    s3edge_gpu,
    s3edge_sign_in,
    s3edge_sign_in_async,
    s3edge_signing_in,
    s3edge_storage,
    s3edge_user,
)
from s3edge_starlette import create_app
from s3edge_wsgi import create_app as create_wsgi_app


__all__ = [
    "pytest_configure",
    "s3edge_backend",
    "s3edge_base_url",
    "s3edge_client",
    "s3edge_clock",
    "s3edge_deployment",
    "s3edge_gpu",
    "s3edge_sign_in",
    "s3edge_sign_in_async",
    "s3edge_signing_in",
    "s3edge_storage",
    "s3edge_user",
]


@pytest.fixture(params=["starlette", "wsgi"])
def s3edge_app(
    request: pytest.FixtureRequest, s3edge_deployment: Deployment, s3edge_clock: ManualClock
) -> Iterator[Callable[..., Any]]:
    """Serve by each door."""
    if request.param == "starlette":
        yield create_app(s3edge_deployment.web)
        return
    app = create_wsgi_app(s3edge_deployment.web, new_event_loop=s3edge_clock.new_event_loop)
    with closing(app):
        yield app


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """Return a picture whose left half is bright."""
    picture = Image.new("L", (8, 6))
    picture.paste(255, (0, 0, 4, 6))
    return picture
