"""Keys that are lent and renewed, URLs that are kept, and a log that tells nothing."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import CredentialRetrievalError

from s3edge.testing import ManualClock
from s3edge_s3.presigned import MAX_KEPT, REUSE_S, PresignedUrls
from s3edge_s3.signing import EMPTY_SHA256_HASH, AccessKeys, Signer


SECRET = "hunter2hunter2"
URL = "https://store.example/bucket/key"


class Lender:
    """Lends keys, each good for an hour from the time it has."""

    def __init__(self, left_s: float = 3600) -> None:
        self.now = datetime.now(UTC)
        self.lent = 0
        self.is_down = False
        self.credentials = RefreshableCredentials(
            "KEY0", SECRET, "token", self._expiry(left_s), self._lend, "test", lambda: self.now
        )

    def _expiry(self, left_s: float) -> datetime:
        return self.now + timedelta(seconds=left_s)

    def _lend(self) -> dict[str, Any]:
        if self.is_down:
            raise CredentialRetrievalError(provider="test", error_msg=SECRET)
        self.lent += 1
        return {
            "access_key": f"KEY{self.lent}",
            "secret_key": SECRET,
            "token": "token",
            "expiry_time": self._expiry(3600).isoformat(),
        }


def signer_of(credentials: Credentials) -> Signer:
    """Return what signs with a key."""
    return Signer(AccessKeys(credentials), "auto")


@pytest.mark.anyio
async def test_a_lent_key_is_renewed_in_good_time() -> None:
    """A request renews it minutes before its end; then URLs are signed with the new one too."""
    lender = Lender()
    signer = signer_of(lender.credentials)
    first = await signer.headers("GET", URL, {}, EMPTY_SHA256_HASH)
    assert "Credential=KEY0/" in first["Authorization"]
    lender.now += timedelta(minutes=50)
    second = await signer.headers("GET", URL, {}, EMPTY_SHA256_HASH)
    assert "Credential=KEY1/" in second["Authorization"]
    assert "Credential=KEY1%2F" in signer.presign(URL, 60)
    assert lender.lent == 1


def test_a_lent_key_is_renewed_at_the_last_moment_for_a_url() -> None:
    """Where only URLs are signed, nobody else renews it."""
    lender = Lender()
    signer = signer_of(lender.credentials)
    lender.now += timedelta(minutes=50)
    assert "Credential=KEY0%2F" in signer.presign(URL, 60)
    lender.now += timedelta(minutes=9, seconds=30)
    assert "Credential=KEY1%2F" in signer.presign(URL, 60)


@pytest.mark.anyio
async def test_a_key_that_cannot_be_renewed_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """The store says itself when it is over; the log holds no secret."""
    lender = Lender()
    signer = signer_of(lender.credentials)
    lender.is_down = True
    lender.now += timedelta(minutes=59, seconds=30)
    headers = await signer.headers("GET", URL, {}, EMPTY_SHA256_HASH)
    assert "Credential=KEY0/" in headers["Authorization"]
    assert "could not be renewed" in caplog.text
    lines = [record.message for record in caplog.records if record.name.startswith("s3edge")]
    assert SECRET not in "".join(lines)


@pytest.mark.anyio
async def test_the_debug_log_tells_no_signature(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever level the application logs at."""
    caplog.set_level(logging.DEBUG)
    signer = signer_of(Credentials("KEY", SECRET, "session-token"))
    headers = await signer.headers("PUT", URL, {"Content-Type": "image/png"}, EMPTY_SHA256_HASH)
    url = signer.presign(URL, 60)
    for told in (
        "session-token",
        headers["Authorization"].rpartition("=")[2],
        url.rpartition("=")[2],
        SECRET,
    ):
        assert told not in caplog.text


def test_a_url_is_the_same_for_a_while() -> None:
    """Caches of images know it again; then it is signed anew, and each object has its own."""
    clock = ManualClock()
    signed: list[str] = []

    class CountingSigner(Signer):
        def presign(self, url: str, expires_s: int) -> str:
            signed.append(url)
            return f"{url}?{len(signed)}"

    urls = PresignedUrls(CountingSigner(AccessKeys(Credentials("KEY", SECRET)), "auto"), clock)
    first = urls.sign(URL)
    clock.advance(REUSE_S - 1)
    assert urls.sign(URL) == first
    assert urls.sign(URL + "2") != first
    clock.advance(1)
    assert urls.sign(URL) == f"{URL}?3"
    # A clock that was set back must not keep a URL for ever.
    clock.elapsed_s -= REUSE_S
    assert urls.sign(URL) == f"{URL}?4"


def test_a_url_ends_with_the_key_that_signed_it() -> None:
    """A new key signs every URL anew."""
    lender = Lender()
    urls = PresignedUrls(signer_of(lender.credentials), ManualClock())
    assert "KEY0" in urls.sign(URL)
    lender.now += timedelta(minutes=59, seconds=30)
    assert "KEY1" in urls.sign(URL)


def test_the_kept_urls_are_bounded() -> None:
    """Those that were asked for longest ago are forgotten first."""
    count = 0

    class CountingSigner(Signer):
        def presign(self, url: str, expires_s: int) -> str:
            nonlocal count
            count += 1
            return url

    urls = PresignedUrls(
        CountingSigner(AccessKeys(Credentials("KEY", SECRET)), "auto"), ManualClock()
    )
    for number in range(MAX_KEPT):
        urls.sign(str(number))
    urls.sign("0")
    urls.sign("one more")
    assert (len(urls._kept), count) == (MAX_KEPT, MAX_KEPT + 1)
    urls.sign("0")
    assert count == MAX_KEPT + 1
    urls.sign("1")
    assert count == MAX_KEPT + 2
