"""Files as objects: what the contract suite does not ask of every storage."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from s3edge.errors import Code, EdgeError
from s3edge.rules.keys import upload_key
from s3edge.testing import ManualClock
from s3edge_embedded.storage import FileObjectStorage


pytestmark = pytest.mark.anyio

KEY = upload_key(uuid4(), uuid4())


async def whole(content: bytes) -> AsyncIterator[bytes]:
    """Yield one chunk."""
    yield content


def storage_in(folder: Path, base_url: str = "http://one.example") -> FileObjectStorage:
    """Return a storage."""
    return FileObjectStorage(folder, base_url, ManualClock())


async def test_what_a_dead_process_left_is_removed(tmp_path: Path) -> None:
    """Unfinished puts of a process that is gone are swept; a running one's are not."""
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    storage_in(tmp_path)
    for name in (f"{gone}-dead", f"{os.getppid()}-alive"):
        (tmp_path / ".incoming" / name).mkdir()
        (tmp_path / ".incoming" / name / "@object.png").write_bytes(b"x")
    async with storage_in(tmp_path):
        left = [path.name for path in (tmp_path / ".incoming").iterdir()]
    assert left == [f"{os.getppid()}-alive"]


async def test_urls_of_a_former_address_are_still_known(tmp_path: Path) -> None:
    """The server moved to another port: what the database kept still names our objects."""
    url = storage_in(tmp_path, "http://127.0.0.1:1111").url_for(KEY)
    moved = storage_in(tmp_path, "http://127.0.0.1:2222")
    assert moved.key_of(url) == KEY
    assert moved.url_for(KEY).startswith("http://127.0.0.1:2222/")
    assert storage_in(tmp_path / "other").key_of(url) is None


async def test_objects_are_images_that_can_be_looked_at(tmp_path: Path) -> None:
    """Each is a plain file with the ending of its type, in a folder named for its key."""
    storage = storage_in(tmp_path)
    await storage.put(KEY, whole(b"png"), content_type="image/png")
    assert (tmp_path / KEY / "@object.png").read_bytes() == b"png"


@pytest.mark.parametrize(
    "key", ["../x", "/etc/passwd", "a/../../x", "a//b", ".media-secret", "a/.b", "", "a\x00b", "é"]
)
async def test_no_key_leads_out_of_the_folder(tmp_path: Path, key: str) -> None:
    """A key of another form is refused for writing, and names nothing for reading."""
    storage = storage_in(tmp_path / "media")
    with pytest.raises(EdgeError) as caught:
        await storage.put(key, whole(b"x"), content_type="image/png")
    assert caught.value.code is Code.INTERNAL_ERROR
    assert await storage.head(key) is None
    await storage.delete(key)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".media-secret"]


async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """The start stops with the path in its message."""
    (tmp_path / "media").write_bytes(b"a file is in the way")
    with pytest.raises(EdgeError, match="media"):
        storage_in(tmp_path / "media")


@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancelled_put_leaves_nothing_half_done(tmp_path: Path, times: int) -> None:
    """Wherever asyncio cancels it: the object is whole or absent, and nothing else is left."""
    storage = storage_in(tmp_path)
    for turns in range(30):
        key = upload_key(uuid4(), uuid4())
        put = asyncio.create_task(storage.put(key, whole(b"x" * 10), content_type="image/png"))
        for _ in range(turns):
            # Some of the turns find a thread's call done, and some find it under way.
            await asyncio.sleep(0)
        for _ in range(times):
            put.cancel()
            await asyncio.sleep(0)
        with contextlib.suppress(asyncio.CancelledError):
            await put
        assert list((tmp_path / ".incoming").iterdir()) == []
        stored = await storage.head(key)
        assert stored is None or stored.size_bytes == 10


async def test_a_slow_stream_holds_nobody_else(tmp_path: Path) -> None:
    """While one put waits for its client, another is stored and read."""
    storage = storage_in(tmp_path)
    arrived, go_on = anyio.Event(), anyio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        arrived.set()
        await go_on.wait()
        yield b"second"

    async def put_slowly() -> None:
        await storage.put(KEY, slow(), content_type="image/png")

    async with anyio.create_task_group() as group:
        group.start_soon(put_slowly)
        await arrived.wait()
        other = upload_key(uuid4(), uuid4())
        await storage.put(other, whole(b"x"), content_type="image/png")
        assert [chunk async for chunk in storage.open(other)] == [b"x"]
        assert await storage.head(KEY) is None
        go_on.set()
    assert [chunk async for chunk in storage.open(KEY)] == [b"firstsecond"]
