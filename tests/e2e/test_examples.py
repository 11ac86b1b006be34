"""The host applications of the examples run, each by the command that its first lines name."""

import ast
import re
import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
from attrs import define

from s3edge.rules.keys import unsigned
from s3edge.testing.wsgi_server import WsgiServerProcess


EXAMPLES = Path(__file__).parents[2] / "examples"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "mount-in-your-app.md"

# The programs' ways to be given a folder of modules, and a socket that listens already.
OPTIONS = {"gunicorn": ("--chdir", "--bind", "fd://"), "uvicorn": ("--app-dir", "--fd", "")}


@define
class HostProcess(WsgiServerProcess):
    """
    An example as its user starts it, but for the port, with what the page has gunicorn do at a stop.

    Attributes:
        example: The example's file.
    """

    announcement: ClassVar[re.Pattern[str]] = re.compile(r"(Booting worker|startup complete)")
    source: str = ""
    mount: str = "/segmentation"
    example: Path = EXAMPLES

    def _configure(self) -> None:
        (hooks,) = re.findall(
            r"```python\n(import signal\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL
        )
        assert hooks.count("from flask_app import edge") == 2
        (self.folder / "gunicorn.conf.py").write_text(
            hooks.replace("flask_app", self.example.stem), "utf-8"
        )

    def _program(self) -> Sequence[str]:
        docstring = ast.get_docstring(ast.parse(self.example.read_text("utf-8"))) or ""
        program, *arguments = shlex.split(docstring.rpartition("::\n")[2])
        folder, listen, form = OPTIONS[program]
        socket = f"{form}{self._listener.fileno()}"
        return ["-m", program, *arguments, folder, str(self.example.parent), listen, socket]


@pytest.fixture(scope="module", params=["fastapi_app", "flask_app", "django_app"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an example; return where its segmentation is. It ends orderly."""
    folder = tmp_path_factory.mktemp("host")
    settings = {"PYTHONDONTWRITEBYTECODE": "1"}
    process = HostProcess(folder, settings, example=EXAMPLES / f"{request.param}.py")
    process.start()
    try:
        yield process.url
        # uvicorn shuts down in order, and then ends by the signal all the same.
        assert process.stop() in {0, -signal.SIGTERM}
        log = process.log.read_text()
        assert "Traceback" not in log
        assert "INFO:s3edge.access:GET /health 200" in log
    finally:
        if process.is_running():
            process.kill()
        process.release()


def session(name: str) -> Mapping[str, str]:
    """Return the headers of somebody who is signed in with the host."""
    return {"Authorization": f"Bearer {name}-session"}


def segmented(host: str, scene: bytes) -> Mapping[str, str]:
    """Have ada's image segmented, and return the result."""
    api, ada = host + "/api/v1", session("ada")
    file = ("x.png", scene, "image/png")
    image = httpx.post(f"{api}/upload", files={"file": file}, headers=ada).json()["data"]
    asked = {"image_id": image["image_id"], "text_prompt": "red"}
    accepted = httpx.post(f"{api}/segment", json=asked, headers=ada)
    assert accepted.headers["Location"].startswith("/segmentation/api/v1/tasks/")
    task_url = httpx.URL(host).join(accepted.headers["Location"])
    # Done only if the host holds the gateway open: nobody else dispatches.
    task = httpx.get(task_url, params={"wait": 30}, headers=ada, timeout=40).json()["data"]
    assert task["status"] == "done"
    assert httpx.get(task_url, headers=session("bob")).status_code == 404
    result: Mapping[str, str] = httpx.get(f"{api}/results/{task['result_id']}", headers=ada).json()[
        "data"
    ]
    return result


def test_a_host_keeps_its_own_page(host: str) -> None:
    """Beside the mount, the host answers as before, and not in s3edge's words."""
    page = httpx.get(httpx.URL(host).join("/"))
    assert page.status_code == 200
    assert page.text == "The host's own page; segmentation is at /segmentation"
    assert "error" not in httpx.get(httpx.URL(host).join("/nowhere")).text


def test_the_hosts_users_segment_each_their_own(host: str, scene: bytes) -> None:
    """By the host's sessions an image goes the whole way, and nobody else sees it."""
    mask = httpx.get(segmented(host, scene)["mask_image_url"])
    assert mask.headers["Content-Type"] == "image/png"


def test_the_host_says_who_is_calling(host: str) -> None:
    """Tier and id are the host's, and whom the host does not know is nobody."""
    me = httpx.get(f"{host}/api/v1/me", headers=session("ada")).json()["data"]
    assert (me["user_id"], me["tier"]) == ("6b6f2c1e-1111-4111-8111-111111111111", "pro")
    assert httpx.get(f"{host}/api/v1/me", headers=session("bob")).json()["data"]["tier"] == "free"
    stranger = httpx.get(f"{host}/api/v1/me", headers=session("eve"))
    assert (stranger.status_code, stranger.json()["error"]["code"]) == (401, "AUTH_INVALID")
    assert httpx.get(f"{host}/api/v1/me").json()["error"]["code"] == "AUTH_REQUIRED"


@pytest.mark.parametrize("host", ["fastapi_app"], indirect=True)
def test_a_route_of_the_hosts_own_uses_the_gateway_in_process(host: str, scene: bytes) -> None:
    """FastAPI's own route lists the caller's masks, by the same session."""
    result = segmented(host, scene)
    url = httpx.URL(host).join("/my-masks")
    newest = httpx.get(url, headers=session("ada")).json()[0]
    assert newest["prompt"] == "red"
    assert unsigned(newest["url"]) == unsigned(result["mask_image_url"])
    assert httpx.get(newest["url"]).headers["Content-Type"] == "image/png"
    assert httpx.get(url, headers=session("bob")).json() == []
    assert httpx.get(url, headers=session("eve")).status_code == 401
