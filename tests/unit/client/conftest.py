"""An API that answers what the test says, and images to send to it."""

import io

import pytest
from PIL import Image

from s3edge.testing.scripted_api import ScriptedApi


@pytest.fixture
def api() -> ScriptedApi:
    """Return an API that answers what the test says."""
    return ScriptedApi()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests away from the clients."""
    for name in ("S3EDGE_BASE_URL", "S3EDGE_TOKEN", "S3EDGE_LOG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def png() -> bytes:
    """Return a small PNG."""
    encoded = io.BytesIO()
    Image.new("RGB", (4, 3), (255, 255, 255)).save(encoded, "PNG")
    return encoded.getvalue()
