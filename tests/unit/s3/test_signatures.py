"""URLs that are kept, and a log that tells nothing."""

import logging

import pytest
from botocore.credentials import Credentials

from s3edge.testing import ManualClock
from s3edge_s3.access_keys import AccessKeys
from s3edge_s3.presigned import MAX_KEPT, REUSE_S, PresignedUrls
from s3edge_s3.signing import EMPTY_SHA256_HASH, Signer


SECRET = "hunter2hunter2"
URL = "https://store.example/bucket/key"


def signer_of(credentials: Credentials) -> Signer:
    """Return what signs with a key."""
    return Signer(AccessKeys(credentials), "auto")


def test_the_debug_log_tells_no_signature(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever level the application logs at."""
    caplog.set_level(logging.DEBUG)
    signer = signer_of(Credentials("KEY", SECRET, "session-token"))
    headers = signer.headers("PUT", URL, {"Content-Type": "image/png"}, EMPTY_SHA256_HASH)
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
