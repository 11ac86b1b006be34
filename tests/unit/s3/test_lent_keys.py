"""Keys that are lent and renewed, by lenders that answer, hang and fail."""

import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import anyio
import pytest
from anyio import to_thread
from botocore.exceptions import CredentialRetrievalError

from s3edge.errors import Code, EdgeError
from s3edge.testing import ManualClock
from s3edge_s3.access_keys import AccessKeys, NoKeyError
from s3edge_s3.parts import PART_BYTES
from s3edge_s3.presigned import PresignedUrls
from s3edge_s3.signing import EMPTY_SHA256_HASH, Signer
from s3edge_s3.storage import S3ObjectStorage
from tests.unit.s3.lending import Lender


pytestmark = pytest.mark.anyio

Store = Any  # RecordingStore in conftest.py
Sent = Any
OpenStorage = Callable[..., AbstractAsyncContextManager[S3ObjectStorage]]

URL = "https://store.example/bucket/key"
KEY = "uploads/11111111-0000-4000-8000-000000000000/22222222-0000-4000-8000-000000000000"
LIMIT_S = 20.0
"""What takes as long is never over; a lender that hangs here does so until it is told."""

GOOD = timedelta(minutes=50)
LAST_MOMENT = timedelta(minutes=59, seconds=30)
OVER = timedelta(minutes=61)


@pytest.fixture
def lender(secret: str) -> Iterator[Lender]:
    """Return a lender of keys that the store takes; in the end it hangs no more."""
    lender = Lender(secret)
    yield lender
    lender.answer()


def keys_of(lender: Lender, rest_s: float = 0.0) -> AccessKeys:
    """Return a lender's keys, renewed again at once unless it is said otherwise."""
    return AccessKeys(lender.credentials, rest_s=rest_s)


async def renewed(keys: AccessKeys, name: str) -> None:
    """Return when a key signs."""
    with anyio.fail_after(LIMIT_S):
        while True:
            try:
                if keys.current().access_key == name:
                    return
            except NoKeyError:
                pass
            await anyio.sleep(0.01)


async def stream(size_bytes: int) -> AsyncIterator[bytes]:
    """Yield so many bytes."""
    for start in range(0, size_bytes, PART_BYTES):
        yield b"\xa5" * min(PART_BYTES, size_bytes - start)


@pytest.mark.parametrize("passed", [GOOD, LAST_MOMENT])
@pytest.mark.parametrize("is_url", [False, True])
async def test_a_key_is_renewed_behind_what_it_still_signs(
    lender: Lender, passed: timedelta, *, is_url: bool
) -> None:
    """Requests and URLs alike begin the renewal, and what comes later has the new key."""
    keys = keys_of(lender)
    signer = Signer(keys, "auto")
    lender.now += passed
    lender.hang()
    if is_url:
        assert "Credential=KEY0%2F" in signer.presign(URL, 60)
    else:
        await signer.ready(LIMIT_S)
        headers = signer.headers("GET", URL, {}, EMPTY_SHA256_HASH)
        assert "Credential=KEY0/" in headers["Authorization"]
    lender.answer()
    await renewed(keys, "KEY1")
    headers = signer.headers("GET", URL, {}, EMPTY_SHA256_HASH)
    assert "Credential=KEY1/" in headers["Authorization"]
    assert "Credential=KEY1%2F" in signer.presign(URL, 60)
    assert lender.asked == 1


async def test_a_key_that_has_run_out_is_waited_for(lender: Lender) -> None:
    """A process that was asleep for an hour serves its first request."""
    keys = keys_of(lender)
    lender.now += OVER
    await Signer(keys, "auto").ready(LIMIT_S)
    assert keys.current().access_key == "KEY1"


async def test_a_url_ends_with_the_key_that_signed_it(lender: Lender) -> None:
    """A new key signs every URL anew."""
    keys = keys_of(lender)
    urls = PresignedUrls(Signer(keys, "auto"), ManualClock())
    assert "KEY0" in urls.sign(URL)
    lender.now += LAST_MOMENT
    await renewed(keys, "KEY1")
    assert "KEY1" in urls.sign(URL)


@pytest.mark.parametrize("passed", [GOOD, LAST_MOMENT])
async def test_a_lender_that_hangs_is_not_noticed_while_the_key_is_good(
    store: Store, open_storage: OpenStorage, lender: Lender, passed: timedelta
) -> None:
    """It is asked once, and holds neither requests, nor the loop, nor a thread that others need."""
    keys = keys_of(lender)
    lender.hang()
    others = set(threading.enumerate())
    with anyio.fail_after(LIMIT_S):
        async with open_storage(store.endpoint, keys=keys) as storage:
            lender.now += passed
            await storage.put(KEY, stream(10), content_type="image/png")
            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(storage.check)
            assert "KEY0" in storage.url_for(KEY)
            assert to_thread.current_default_thread_limiter().borrowed_tokens == 0
    renewing = [
        thread for thread in set(threading.enumerate()) - others if "access-key" in thread.name
    ]
    assert (len(renewing), lender.asked) == (1, 1)


async def test_without_a_good_key_the_storage_cannot_be_used(
    store: Store, open_storage: OpenStorage, lender: Lender
) -> None:
    """Whatever is asked for is 503 within its time; when the lender is back, so is the storage."""
    keys = keys_of(lender)
    async with open_storage(store.endpoint, keys=keys) as storage:
        lender.now += OVER
        lender.hang()
        with anyio.fail_after(LIMIT_S):
            for call in (
                lambda: storage.put(KEY, stream(10), content_type="image/png"),
                storage.check,
                lambda: anext(aiter(storage.open(KEY))),
            ):
                with pytest.raises(EdgeError) as refused:
                    await call()
                assert (refused.value.code, refused.value.retryable) == (
                    Code.SERVICE_UNAVAILABLE,
                    True,
                )
        with pytest.raises(EdgeError) as refused:
            storage.url_for(KEY)
        assert refused.value.code is Code.SERVICE_UNAVAILABLE
        assert (store.sent, lender.asked) == ([], 1)
        lender.answer()
        await renewed(keys, "KEY1")
        await storage.put(KEY, stream(10), content_type="image/png")


async def test_who_gives_up_takes_the_renewal_from_nobody(lender: Lender) -> None:
    """Requests that are cancelled end at once; those that still wait get the key."""
    keys = keys_of(lender)
    lender.now += OVER
    lender.hang()
    got: list[str | None] = []

    async def wait() -> None:
        got.append((await keys.ready(LIMIT_S)).access_key)

    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            with anyio.move_on_after(0.01) as given_up:
                await keys.ready(LIMIT_S)
            assert given_up.cancelled_caught
            lender.answer()
    assert (got, lender.asked) == (["KEY1"], 1)


HANGING = """
import anyio
from s3edge_s3.access_keys import AccessKeys, NoKeyError
from tests.unit.s3.lending import Lender

async def main():
    lender = Lender("secret")
    lender.hang()
    try:
        await AccessKeys(lender.deferred).ready(0.01)
    except NoKeyError:
        print(lender.asked)

anyio.run(main)
"""


def test_a_process_ends_while_a_lender_hangs() -> None:
    """Threads that are joined at the end would hold a stop for as long as the lender does."""
    ended = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, timeout=60, check=True
    )
    assert ended.stdout.split() == [b"1"]


async def test_an_assumed_role_has_its_key_from_the_start(
    store: Store, open_storage: OpenStorage, lender: Lender
) -> None:
    """Its first key is lent when the storage is opened, so that URLs can be signed."""
    async with open_storage(store.endpoint, keys=AccessKeys(lender.deferred)) as storage:
        assert "KEY1" in storage.url_for(KEY)


async def test_a_start_is_not_held(store: Store, open_storage: OpenStorage, lender: Lender) -> None:
    """A lender that hangs is found by whoever asks whether the storage is ready."""
    lender.hang()
    keys = AccessKeys(lender.deferred)
    with anyio.fail_after(LIMIT_S):
        async with open_storage(store.endpoint, keys=keys) as storage:
            with pytest.raises(EdgeError):
                await storage.check()
            lender.answer()
            await renewed(keys, "KEY1")
            await storage.check()


@pytest.mark.parametrize("kind", [CredentialRetrievalError, RuntimeError, KeyError, EOFError])
async def test_whatever_a_lender_raises_is_an_outage(
    store: Store,
    open_storage: OpenStorage,
    lender: Lender,
    secret: str,
    caplog: pytest.LogCaptureFixture,
    kind: type[Exception],
) -> None:
    """A key that is still good goes on; one that is not is 503. Our lines hold no secret."""
    lender.error = (
        CredentialRetrievalError(provider="test", error_msg=secret)
        if kind is CredentialRetrievalError
        else kind(secret)
    )
    keys = keys_of(lender)
    async with open_storage(store.endpoint, keys=keys) as storage:
        lender.now += LAST_MOMENT
        await storage.check()
        lender.now += OVER - LAST_MOMENT
        with pytest.raises(EdgeError) as refused:
            await storage.check()
        assert refused.value.code is Code.SERVICE_UNAVAILABLE
    lines = [record.getMessage() for record in caplog.records if "s3edge" in record.name]
    assert f"the access key could not be renewed: {kind.__name__}" in lines
    assert secret not in "".join(lines)


async def test_a_key_that_is_over_when_it_is_lent_is_an_outage(
    store: Store, open_storage: OpenStorage, lender: Lender
) -> None:
    """That error is none of its own kinds: ``RuntimeError`` itself."""
    lender.lends_for_s = -1.0
    async with open_storage(store.endpoint, keys=keys_of(lender)) as storage:
        lender.now += OVER
        with pytest.raises(EdgeError) as refused:
            await storage.check()
        assert refused.value.code is Code.SERVICE_UNAVAILABLE
        with pytest.raises(EdgeError):
            storage.url_for(KEY)


async def test_a_lender_that_fails_rests(lender: Lender) -> None:
    """Requests that come meanwhile do not each ask it."""
    lender.error = RuntimeError("no")
    lender.now += OVER
    keys = keys_of(lender, rest_s=3600)
    for _ in range(3):
        with pytest.raises(NoKeyError):
            await keys.ready(LIMIT_S)
    assert lender.asked == 1


async def test_a_key_that_ends_soon_signs_at_once(secret: str) -> None:
    """Also when nobody could lend another one, for as long as it is good."""
    lender = Lender(secret, left_s=300)
    lender.error = CredentialRetrievalError(provider="test", error_msg="down")
    assert keys_of(lender).current().access_key == "KEY0"


async def test_what_a_lender_said_is_in_no_log(
    lender: Lender, caplog: pytest.LogCaptureFixture
) -> None:
    """Botocore would quote it, and it may be a secret."""
    lender.now += OVER
    lender.error = CredentialRetrievalError(provider="test", error_msg="token=hidden-word")
    with pytest.raises(NoKeyError):
        await keys_of(lender).ready()
    assert "could not be renewed: CredentialRetrievalError" in caplog.text
    assert "hidden-word" not in caplog.text


async def test_a_lender_that_hangs_is_told_of_once(
    lender: Lender, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else would: nothing fails until the key has run out."""
    monkeypatch.setattr("s3edge_s3.access_keys.LATE_S", 0.0)
    lender.hang()
    lender.now += GOOD
    keys = keys_of(lender)
    for _ in range(3):
        assert keys.current().access_key == "KEY0"
    assert caplog.text.count("whoever lends it says nothing") == 1


async def test_parts_are_removed_when_the_key_is_back(
    store: Store, open_storage: OpenStorage, lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that runs out in the middle of a put leaves parts, which cost; not for ever."""
    monkeypatch.setattr("s3edge_s3.leftovers.DELAYS_S", (0.01,))
    monkeypatch.setattr("s3edge_s3.leftovers.UNANSWERED_DELAY_S", 0.01)
    removed = anyio.Event()

    async def run_out(sent: Sent) -> None:
        if sent.action == "PUT part 1":
            lender.error = RuntimeError("still expired")
            lender.now += OVER

    async def see(sent: Sent) -> None:
        if sent.action == "DELETE upload":
            removed.set()

    store.before, store.after = run_out, see
    async with open_storage(store.endpoint, keys=keys_of(lender)) as storage:
        with pytest.raises(EdgeError):
            await storage.put(KEY, stream(2 * PART_BYTES), content_type="image/png")
        assert store.uploads
        lender.error = None
        with anyio.fail_after(LIMIT_S):
            await removed.wait()
    assert store.is_empty


async def test_the_doctor_names_the_key(
    store: Store, open_storage: OpenStorage, lender: Lender
) -> None:
    """What is to be mended is not the endpoint."""
    lender.error = RuntimeError("no")
    lender.now += OVER
    async with open_storage(store.endpoint, keys=keys_of(lender)) as storage:
        [finding] = [finding async for finding in storage.examine()]
    assert not finding.ok
    assert "has run out" in finding.message
    assert "R2_ACCESS_KEY_ID" in finding.message
    assert "R2_ENDPOINT" not in finding.message
