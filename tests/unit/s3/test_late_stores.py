"""A store that acts when its put has failed already."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest
from aiohttp import web
from botocore.credentials import Credentials, ReadOnlyCredentials

from s3edge.errors import EdgeError
from s3edge_s3.access_keys import AccessKeys
from s3edge_s3.parts import PART_BYTES
from s3edge_s3.storage import S3ObjectStorage


pytestmark = pytest.mark.anyio

Store = Any  # RecordingStore in conftest.py
Sent = Any
S3Error = Callable[[int, str], web.Response]
OpenStorage = Callable[..., AbstractAsyncContextManager[S3ObjectStorage]]

UPLOAD = "uploads/11111111-0000-4000-8000-000000000000/22222222-0000-4000-8000-000000000000"
MASK = "masks/11111111-0000-4000-8000-000000000000/22222222-0000-4000-8000-000000000000"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look again at once."""
    monkeypatch.setattr("s3edge_s3.leftovers.DELAYS_S", (0.01,) * 3)
    monkeypatch.setattr("s3edge_s3.leftovers.UNANSWERED_DELAY_S", 0.01)


async def stream(size_bytes: int) -> AsyncIterator[bytes]:
    """Yield so many bytes."""
    for start in range(0, size_bytes, PART_BYTES):
        yield b"\xa5" * min(PART_BYTES, size_bytes - start)


class LateStore:
    """Has a store wait with everything, act on it when it is told to, and say when it is done."""

    def __init__(self, store: Store, first: str) -> None:
        self._store = store
        self._first = first
        self._is_silent = False
        self._go_on = anyio.Event()
        self.removed = anyio.Event()
        store.before = self.wait
        store.after = self.count

    def go_on(self) -> None:
        """Act on all that waits."""
        self._is_silent = False
        self._first = ""
        self._go_on.set()

    async def wait(self, sent: Sent) -> None:
        """Be silent from the first request of an action on."""
        if self._is_silent or sent.action == self._first:
            self._is_silent = True
            await self._go_on.wait()

    async def count(self, sent: Sent) -> None:
        """See what is done."""
        if sent.action in ("DELETE", "DELETE upload"):
            self.removed.set()


@pytest.mark.parametrize(("action", "size_bytes"), [("PUT", 10), ("PUT part 2", 2 * PART_BYTES)])
async def test_what_appears_late_is_removed(
    store: Store, impatient: S3ObjectStorage, action: str, size_bytes: int
) -> None:
    """An object, or the parts of an upload, of a put that was refused meanwhile."""
    late = LateStore(store, action)
    with pytest.raises(EdgeError):
        await impatient.put(UPLOAD, stream(size_bytes), content_type="image/png")
    late.go_on()
    with anyio.fail_after(10):
        await late.removed.wait()
    assert store.is_empty


async def test_what_may_be_put_again_stays(
    store: Store, storage: S3ObjectStorage, impatient: S3ObjectStorage
) -> None:
    """A mask that appears late is the first of its key: the retry finds it, and has it."""
    late = LateStore(store, "PUT")
    with pytest.raises(EdgeError):
        await impatient.put(MASK, stream(10), content_type="image/png")
    late.go_on()
    stored = await storage.put(MASK, stream(20), content_type="image/png")
    assert stored.size_bytes == 10
    assert not late.removed.is_set()
    assert list(store.objects) == [MASK]


class StumblingKeys(AccessKeys):
    """Raise what nobody foresaw, while they are told to."""

    stumble = False

    def current(self) -> ReadOnlyCredentials:
        """Return the key, or stumble."""
        if self.stumble:
            raise KeyError("unforeseen")
        return super().current()


async def test_a_clean_up_that_fails_unforeseen_is_done_later(
    store: Store,
    open_storage: OpenStorage,
    answer_with: S3Error,
    secret: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The put raises what it failed for, the log has the trace, and the parts go in the end."""
    keys = StumblingKeys(Credentials("KEY", secret))
    removed = anyio.Event()

    async def refuse(sent: Sent) -> web.Response | None:
        if sent.action != "PUT part 2":
            return None
        keys.stumble = True
        return answer_with(403, "AccessDenied")

    async def see(sent: Sent) -> None:
        if sent.action == "DELETE upload":
            removed.set()

    store.before, store.after = refuse, see
    async with open_storage(store.endpoint, keys=keys) as storage:
        with pytest.raises(EdgeError):
            await storage.put(UPLOAD, stream(2 * PART_BYTES), content_type="image/png")
        assert store.uploads
        keys.stumble = False
        with anyio.fail_after(10):
            await removed.wait()
    assert store.is_empty
    assert any(record.exc_info and record.exc_info[0] is KeyError for record in caplog.records)
