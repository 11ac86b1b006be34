"""What users see of the storage, in a whole deployment: its time passes, and it fails."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from s3edge.client import Client, NotFound, ServiceUnavailable
from s3edge.testing import ManualClock, ScriptedGpu, SignIn
from s3edge.values import User
from s3edge_blobs import BlobObjectStorage


PICTURE = Image.new("L", (8, 6), 255)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the storage is."""
    return tmp_path / "media.db"


@pytest.fixture
def s3edge_storage(
    path: Path, s3edge_base_url: str, s3edge_clock: ManualClock
) -> BlobObjectStorage:
    """Have the deployment keep its images in it."""
    return BlobObjectStorage(path, s3edge_base_url, s3edge_clock)


@contextmanager
def down(path: Path) -> Generator[None, None, None]:
    """Take the file away, so that SQLite finds no tables, and put it back."""
    away = path.with_suffix(".away")
    path.rename(away)
    try:
        yield
    finally:
        away.replace(path)


def test_a_mask_comes_out(s3edge_client: Client) -> None:
    """Through the whole of s3edge."""
    result = s3edge_client.segment(s3edge_client.upload(PICTURE), "x").wait(timeout=5)
    assert result.mask.to_pil().tobytes() == PICTURE.tobytes()


def test_urls_expire_and_are_made_anew(
    s3edge_sign_in: SignIn, s3edge_user: User, s3edge_clock: ManualClock
) -> None:
    """After two hours that the test lets pass; whoever was signed in for one signs in again."""
    client = s3edge_sign_in(s3edge_user)
    image = client.upload(PICTURE)
    task = client.segment(image, "x")
    task.wait(timeout=5)
    s3edge_clock.advance(2 * 3600)
    later = s3edge_sign_in(s3edge_user)
    with pytest.raises(NotFound):
        later.request("GET", image.image_url)
    assert later.result(task.id).mask.read()


def test_an_outage_is_waited_through_then_told(
    s3edge_client: Client, s3edge_clock: ManualClock, path: Path
) -> None:
    """Users read 503, and clients come back when they are told to."""
    with down(path), pytest.raises(ServiceUnavailable):
        s3edge_client.upload(PICTURE)
    # Four tries more, each after the 5 seconds that the answer asked for, and a bit.
    assert s3edge_clock.pauses == [5.5] * 4
    assert s3edge_client.upload(PICTURE).width == 8


def test_an_outage_under_a_task_is_tried_again_and_charged_once(
    s3edge_client: Client, s3edge_gpu: ScriptedGpu, path: Path
) -> None:
    """The GPU cannot store its mask; the next try can."""
    s3edge_gpu.hold()
    task = s3edge_client.segment(s3edge_client.upload(PICTURE), "x")
    with down(path):
        s3edge_gpu.release()
        assert task.refresh().status == "processing"
    assert task.wait(timeout=60).mask.read()
    assert len(s3edge_gpu.requests) == 2
    assert s3edge_client.me().credits == 99
