"""The examples run."""

import runpy
from pathlib import Path

import httpx
import pytest

from s3edge.cli.server import bind, running_in_thread, url_of
from s3edge.testing.wsgi_server import GunicornProcess


EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_host_application_keeps_its_own_pages_and_users(tmp_path: Path, scene: bytes) -> None:
    """The host's page and the mounted API answer, by the host's own sessions, each user apart."""
    create_host = runpy.run_path(str(EXAMPLES / "host_app.py"))["create_host"]
    with bind("127.0.0.1", 0) as listener:
        origin = url_of(listener)
        with running_in_thread(create_host(tmp_path, origin), listener):
            check_host(origin, scene)


@pytest.mark.parametrize("name", ["flask_app", "django_app"])
def test_a_wsgi_host_keeps_its_own_pages_and_users(tmp_path: Path, scene: bytes, name: str) -> None:
    """Likewise, in Flask and in Django, on gunicorn."""
    source = f"""
import os, sys
from pathlib import Path

sys.path.insert(0, {str(EXAMPLES)!r})
from {name} import create_host

app = create_host(Path("data"), os.environ["S3EDGE_PUBLIC_URL"])
"""
    server = GunicornProcess(tmp_path, {}, source=source, hooks="", health="/segmentation/health")
    server.start()
    try:
        check_host(server.url, scene)
        assert server.stop() == 0
    finally:
        if server.is_running():
            server.kill()
        server.release()


def check_host(origin: str, scene: bytes) -> None:
    """Use a host as its users do."""
    assert "host's own page" in httpx.get(origin).text
    api = origin + "/segmentation/api/v1"
    ada = {"Authorization": "Bearer ada-session"}
    bob = {"Authorization": "Bearer bob-session"}
    image = httpx.post(
        f"{api}/upload", files={"file": ("x.png", scene, "image/png")}, headers=ada
    ).json()["data"]
    accepted = httpx.post(
        f"{api}/segment",
        json={"image_id": image["image_id"], "text_prompt": "red"},
        headers=ada,
    )
    task_url = origin + accepted.headers["Location"]
    task = httpx.get(task_url, params={"wait": 30}, headers=ada, timeout=40).json()["data"]
    assert task["status"] == "done"
    assert httpx.get(task_url, headers=bob).status_code == 404
    assert httpx.get(f"{api}/me", headers=bob).json()["data"]["tier"] == "free"
    assert httpx.get(f"{api}/me").status_code == 401
    result = httpx.get(f"{api}/results/{task['task_id']}", headers=ada).json()["data"]
    assert httpx.get(result["mask_image_url"]).headers["Content-Type"] == "image/png"
