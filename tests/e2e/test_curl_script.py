"""The script of "Call it from anything" is run as the page has it."""

import io
import os
import re
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import anyio.to_thread
import pytest
from attrs import frozen
from PIL import Image

from s3edge.client import Client
from s3edge.testing.programs import CURL, JQ
from s3edge.testing.server import ServerProcess
from s3edge.testing.standins.scripted_server import Received, ScriptedServer, raw, reply


PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "call-from-anything.md"

FAILED, WRONG, NO_CREDITS, SIGN_IN, LATER = 1, 2, 3, 4, 5


@frozen
class Script:
    """
    The script, in a folder with an image.

    Attributes:
        folder: Where it runs.
    """

    folder: Path

    def run(
        self,
        url: str,
        token: str,
        image: str = "photo.png",
        prompt: str = "red",
        mask: str = "mask.png",
    ) -> subprocess.CompletedProcess[str]:
        """Run it, with nothing but what the page says; what is empty is not set."""
        named = {"S3EDGE_BASE_URL": url, "S3EDGE_TOKEN": token}
        return subprocess.run(
            ["bash", "segment.sh", image, prompt, mask],
            env={
                "PATH": os.environ["PATH"],
                "TMPDIR": str(self.folder / "tmp"),
                **{name: value for name, value in named.items() if value},
            },
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def leaves(self) -> set[str]:
        """Name what it left, besides what was there."""
        names = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}
        return names - {"photo.png", "segment.sh", "tmp"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Return a server that counts nothing."""
    server = ServerProcess(tmp_path_factory.mktemp("server"), {"S3EDGE_RATE_LIMITS": "off"})
    server.start()
    yield server
    server.kill()


@pytest.fixture
def script(tmp_path: Path, scene: bytes) -> Script:
    """Take it out of the page."""
    CURL.require()
    JQ.require()
    (text,) = re.findall(r"```bash\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    folder = tmp_path / "script"
    (folder / "tmp").mkdir(parents=True)
    (folder / "segment.sh").write_text(text)
    (folder / "photo.png").write_bytes(scene)
    return Script(folder)


@pytest.fixture
def user_id() -> UUID:
    """Return somebody new."""
    return uuid4()


def test_it_saves_the_mask(server: ServerProcess, script: Script, user_id: UUID) -> None:
    """Any name and any prompt will do; one credit is charged, and nothing else is left."""
    token = server.token(user_id)
    name = 'a "photo", of; mine\\.PNG'
    (script.folder / "photo.png").rename(script.folder / name)
    prompt = 'the "red" disc \\ & $HOME 100%'
    ran = script.run(server.url + "/", token, name, prompt)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "mask.png\n", "")
    with Image.open(script.folder / "mask.png") as mask:
        assert (mask.size, mask.getbbox() is None) == ((96, 64), False)
    assert script.leaves() == {name, "mask.png"}
    with Client(base_url=server.url, token=token) as client:
        assert [result.text_prompt for result in client.results()] == [prompt]
        assert client.me().credits == 99


def test_its_exit_status_says_what_is_wrong(server: ServerProcess, script: Script) -> None:
    """By the code of the envelope; the message and the request's id are shown."""
    token = server.token(uuid4())

    def ends(status: int, says: str, ran: subprocess.CompletedProcess[str]) -> None:
        assert (ran.returncode, ran.stdout) == (status, ""), ran.stderr
        assert re.fullmatch(rf"segment\.sh: {says}.*\n", ran.stderr), ran.stderr

    ends(SIGN_IN, r"AUTH_INVALID: .* \(request [0-9a-f-]{36}\)", script.run(server.url, "nobody"))
    ends(WRONG, "INVALID_REQUEST: ", script.run(server.url, token, prompt=" "))
    ends(WRONG, "there.png cannot be read", script.run(server.url, token, "there.png"))
    ends(WRONG, "notes.txt is no", script.run(server.url, token, "notes.txt"))
    ends(WRONG, "set S3EDGE_BASE_URL and S3EDGE_TOKEN", script.run("", token))
    ends(WRONG, "set S3EDGE_BASE_URL and S3EDGE_TOKEN", script.run(server.url, ""))
    for mask in ("nowhere/mask.png", "tmp"):
        ends(WRONG, f"{mask} cannot be written", script.run(server.url, token, mask=mask))
    with Client(base_url=server.url, token=token) as client:
        assert (client.me().credits, list(client.results())) == (100, [])
    # Cut short behind its header, an image is accepted and cannot be segmented.
    photo = script.folder / "photo.png"
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(noise, "PNG")
    photo.write_bytes(noise.getvalue()[:200])
    ends(FAILED, "(INVALID_REQUEST|INFERENCE_FAILED): ", script.run(server.url, token))
    photo.write_bytes(b"no image")
    ends(WRONG, "INVALID_REQUEST: ", script.run(server.url, token))
    assert script.leaves() == set()


def of_envelope(data: object = None, code: str | None = None) -> Mapping[str, object]:
    """Return an answer's body."""
    error = {"code": code, "message": "so it is"} if code else None
    return {"success": not code, "data": data, "error": error, "meta": {"request_id": "r"}}


Reply = Callable[[Received], Awaitable[bytes]]


def in_turn(*replies: Reply) -> tuple[Reply, list[Received]]:
    """Return a reply that is each of these in turn, and where requests are kept."""
    received: list[Received] = []

    async def answer(request: Received) -> bytes:
        received.append(request)
        return await replies[len(received) - 1](request)

    return answer, received


@pytest.mark.anyio
async def test_it_repeats_under_one_key(script: Script) -> None:
    """A busy server is asked again after what it says, and so is one that hung up; the key stays."""
    segment, received = in_turn(
        reply(of_envelope(code="SERVICE_UNAVAILABLE"), 503, Retry_After="1"),
        raw(b""),
        reply(of_envelope(code="INSUFFICIENT_CREDITS"), 402),
    )
    image_id = str(uuid4())
    server = ScriptedServer(
        {"/api/v1/upload": reply(of_envelope({"image_id": image_id})), "/api/v1/segment": segment}
    )
    async with server.serving():
        ran = await anyio.to_thread.run_sync(script.run, server.url, "a-token")
    assert (ran.returncode, ran.stdout) == (NO_CREDITS, "")
    assert ran.stderr.endswith("segment.sh: INSUFFICIENT_CREDITS: so it is (request r)\n")
    assert [request.headers["idempotency-key"] for request in received] == [image_id] * 3
    assert len({request.body for request in received}) == 1
    assert {request.headers["authorization"] for request in received} == {"Bearer a-token"}


@pytest.mark.anyio
async def test_a_page_of_somebody_elses_is_no_answer(script: Script) -> None:
    """A proxy's page, or nothing at all, is not taken for success."""
    for page in (b"<!doctype html>", b""):
        server = ScriptedServer({"/api/v1/upload": reply(page)})
        async with server.serving():
            ran = await anyio.to_thread.run_sync(script.run, server.url, "a-token")
        assert (ran.returncode, ran.stdout) == (LATER, "")
        assert "is not s3edge" in ran.stderr
