"""The example that segments a folder: bounded, resumable, and it says what failed."""

import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from anyio import to_thread

from s3edge.cli.server import bind, running_in_thread, url_of
from s3edge.client import Client
from s3edge.memory import ThresholdBackend
from s3edge.ports import ObjectStorage
from s3edge.testing.deployment import memory_deployment
from s3edge.testing.server import ServerProcess, StartServer
from s3edge.values import Prediction, PredictRequest, User
from s3edge_starlette import create_app


PROGRAM = Path(__file__).parents[2] / "examples" / "segment_folder.py"
IMAGES = 8


@pytest.fixture
def photos(tmp_path: Path, scene: bytes) -> Path:
    """Return a folder of images, and of something that is none of its business."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(IMAGES):
        (folder / f"{number}.PNG").write_bytes(scene)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def user_id() -> UUID:
    """Return somebody new."""
    return uuid4()


@pytest.fixture
def client(server: ServerProcess, user_id: UUID) -> Iterator[Client]:
    """Return a client signed in as the user who runs the program."""
    with Client(base_url=server.url, token=server.token(user_id)) as client:
        yield client


def program(
    url: str, token: str, *arguments: object, stderr: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """Start the program."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        env={
            "PATH": os.environ["PATH"],
            "TERM": "xterm",
            "S3EDGE_BASE_URL": url,
            "S3EDGE_TOKEN": token,
        },
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def started(server: ServerProcess, user_id: UUID, *arguments: object) -> subprocess.Popen[str]:
    """Start the program as a user of a server."""
    return program(server.url, server.token(user_id), *arguments)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return the status of a program and what it printed."""
    out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def test_a_killed_run_is_gone_on_with(
    server: ServerProcess, client: Client, user_id: UUID, photos: Path, tmp_path: Path
) -> None:
    """However often it is killed, every image gets its mask and is paid for once."""
    masks = tmp_path / "masks"
    for enough in (1, 3, 5):
        process = started(server, user_id, photos, masks, "red", "--at-once", "2")
        ends_at = time.monotonic() + 60
        while len(list(masks.glob("*.mask.png"))) < enough and time.monotonic() < ends_at:
            time.sleep(0.01)
        process.kill()
        ended(process)
    status, out, err = ended(started(server, user_id, photos, masks, "red"))
    assert (status, err) == (0, "")
    assert f"{IMAGES} of {IMAGES}" in out
    expected = sorted(f"{number}.PNG.mask.png" for number in range(IMAGES))
    assert sorted(path.name for path in masks.iterdir()) == [*expected, "prompt.txt"]
    assert client.me().credits == 100 - IMAGES
    assert ended(started(server, user_id, photos, masks, "red"))[0] == 0
    assert client.me().credits == 100 - IMAGES


def test_an_image_that_fails_does_not_stop_the_others(
    server: ServerProcess, user_id: UUID, photos: Path, tmp_path: Path
) -> None:
    """It is named at the end, and the status says so."""
    (photos / "broken.png").write_bytes(b"no image")
    (photos / f"{'long' * 60}.png").write_bytes(b"")
    (photos / "folder.png").mkdir()
    os.mkfifo(photos / "pipe.png")
    status, out, err = ended(started(server, user_id, photos, tmp_path / "masks", "red"))
    assert status == 1
    broken, long = sorted(err.splitlines())
    assert broken.startswith("broken.png: ")
    assert "File name too long" in long
    assert f"{IMAGES} of {IMAGES + 2}" in out


def test_what_another_user_asked_for_is_left_to_a_person(
    server: ServerProcess, user_id: UUID, photos: Path, tmp_path: Path
) -> None:
    """The note is named, and nothing is asked for anew in its place."""
    (tmp_path / "masks").mkdir()
    note = tmp_path / "masks" / "0.PNG.mask.png.note"
    note.write_text(f'{{"prompt": "red", "image_id": null, "task_id": "{uuid4()}"}}')
    status, out, err = ended(started(server, user_id, photos, tmp_path / "masks", "red"))
    assert (status, err.count("\n")) == (1, 1)
    assert f"{note} may be of another server or user: delete it to ask anew" in err
    assert f"{IMAGES - 1} of {IMAGES}" in out
    note.unlink()
    assert ended(started(server, user_id, photos, tmp_path / "masks", "red"))[0] == 0


def test_without_credits_it_stops(
    start_server: StartServer, user_id: UUID, photos: Path, tmp_path: Path
) -> None:
    """What every image would meet is said once, and nothing is lost."""
    server = start_server(S3EDGE_RATE_LIMITS="off", S3EDGE_INITIAL_CREDITS="3")
    status, _, err = ended(started(server, user_id, photos, tmp_path / "masks", "red"))
    assert (status, err.count("\n")) == (1, 1)
    assert "INSUFFICIENT_CREDITS" in err
    server.run("credits", "grant", str(user_id), "5")
    assert ended(started(server, user_id, photos, tmp_path / "masks", "red"))[0] == 0
    with Client(base_url=server.url, token=server.token(user_id)) as client:
        assert client.me().credits == 0


def test_on_a_terminal_a_bar_shows_how_far_it_is(
    server: ServerProcess, user_id: UUID, photos: Path, tmp_path: Path
) -> None:
    """It begins at what there is and ends at all; elsewhere nothing is drawn, as the tests above see."""
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "0.PNG.mask.png").write_bytes(b"of an earlier run")
    terminal, other_end = pty.openpty()
    process = program(
        server.url, server.token(user_id), photos, tmp_path / "masks", "red", stderr=other_end
    )
    os.close(other_end)
    drawn = b""
    try:
        while chunk := os.read(terminal, 4096):
            drawn += chunk
    except OSError:  # how Linux says that nobody is at the other end any more
        pass
    finally:
        os.close(terminal)
    assert ended(process)[0] == 0
    counts = re.findall(rb"segmenting.*?(\d+)/8", drawn)
    assert (counts[0], counts[-1]) == (b"1", b"8")
    assert sorted(counts) == counts


def test_what_cannot_be_is_refused_before_anything_is_sent(photos: Path, tmp_path: Path) -> None:
    """In a sentence, with the status of a wrong argument: there is no server that could refuse it."""
    masks, file = tmp_path / "masks", photos / "notes.txt"

    def refusal(*arguments: object) -> str:
        status, out, err = ended(program("http://127.0.0.1:9", "x", *arguments))
        assert (status, out, "Traceback" in err) == (2, "", False)
        return err

    assert "the prompt is empty" in refusal(photos, masks, " ")
    assert "is not a folder that can be read" in refusal(tmp_path / "nowhere", masks, "red")
    assert "is not a folder that can be read" in refusal(file, masks, "red")
    assert not masks.exists()
    assert "cannot be used" in refusal(photos, file, "red")
    assert "name another folder" in refusal(photos, photos / ".." / photos.name, "red")
    assert "cannot be printed" in refusal(photos, masks, "\udcff")
    masks.mkdir()
    (masks / "prompt.txt").write_text("blue")
    assert "has the masks of 'blue'; name another folder for 'red'" in refusal(photos, masks, "red")


class HeldBackend(ThresholdBackend):
    """
    Keeps every task until it is told to go on.

    Attributes:
        came: Released for each task that is there.
        may_go_on: Set by the test.
    """

    def __init__(self, storage: ObjectStorage) -> None:
        super().__init__(storage)
        self.came = threading.Semaphore(0)
        self.may_go_on = threading.Event()

    async def predict(self, request: PredictRequest) -> Prediction:
        """Implement ``InferenceBackend``."""
        self.came.release()
        await to_thread.run_sync(self.may_go_on.wait)
        return await super().predict(request)


def test_no_more_are_under_way_than_it_was_told(
    user_id: UUID, photos: Path, tmp_path: Path
) -> None:
    """While three are segmented, the fourth is not even uploaded; an interrupt ends it in one line."""
    with bind("127.0.0.1", 0) as listener:
        url = url_of(listener)
        deployment = memory_deployment(url)
        backend = HeldBackend(deployment.storage)
        deployment.gateway.backend = backend
        token = deployment.authenticator.issue(User(user_id), lifetime_s=600)
        with running_in_thread(create_app(deployment.web), listener):
            process = program(url, token, photos, tmp_path / "masks", "red", "--at-once", "3")
            try:
                assert all(backend.came.acquire(timeout=60) for _ in range(3))
                assert len(deployment.storage.keys()) == 3
                status, _, err = ended(program(url, token, photos, tmp_path / "masks", "red"))
                assert (status, "in use by another run" in err) == (2, True)
                process.send_signal(signal.SIGINT)
                assert ended(process) == (130, "", "stopped; run it again to go on\n")
            finally:
                backend.may_go_on.set()
            process = program(url, token, photos, tmp_path / "masks", "red", "--at-once", "3")
            assert ended(process)[0] == 0
        assert len(list((tmp_path / "masks").glob("*.mask.png"))) == IMAGES
