"""The example that segments a folder: bounded, resumable, and it says what failed."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from s3edge.client import Client
from s3edge.testing.server import ServerProcess, StartServer


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


def started(server: ServerProcess, user_id: UUID, *arguments: object) -> subprocess.Popen[str]:
    """Start the program as a user."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        env={
            "PATH": os.environ["PATH"],
            "S3EDGE_BASE_URL": server.url,
            "S3EDGE_TOKEN": server.token(user_id),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(program: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return the status of a program and what it printed."""
    out, err = program.communicate(timeout=100)
    return program.returncode, out, err


def test_a_killed_run_is_gone_on_with(
    server: ServerProcess, client: Client, user_id: UUID, photos: Path, tmp_path: Path
) -> None:
    """However often it is killed, every image gets its mask and is paid for once."""
    masks = tmp_path / "masks"
    for enough in (1, 3, 5):
        program = started(server, user_id, photos, masks, "red", "--at-once", "2")
        ends_at = time.monotonic() + 60
        while len(list(masks.glob("*.mask.png"))) < enough and time.monotonic() < ends_at:
            time.sleep(0.01)
        program.kill()
        ended(program)
    status, out, err = ended(started(server, user_id, photos, masks, "red"))
    assert (status, err) == (0, "")
    assert f"{IMAGES} of {IMAGES}" in out
    expected = sorted(f"{number}.PNG.mask.png" for number in range(IMAGES))
    assert sorted(path.name for path in masks.iterdir()) == expected
    assert client.me().credits == 100 - IMAGES
    assert ended(started(server, user_id, photos, masks, "red"))[0] == 0
    assert client.me().credits == 100 - IMAGES


def test_an_image_that_fails_does_not_stop_the_others(
    server: ServerProcess, user_id: UUID, photos: Path, tmp_path: Path
) -> None:
    """It is named at the end, and the status says so."""
    (photos / "broken.png").write_bytes(b"no image")
    status, out, err = ended(started(server, user_id, photos, tmp_path / "masks", "red"))
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("broken.png: ")
    assert f"{IMAGES} of {IMAGES + 1}" in out


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
