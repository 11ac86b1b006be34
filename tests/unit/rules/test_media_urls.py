"""Signed, expiring URLs for objects that the app serves itself."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from s3edge.rules.media_urls import MEDIA_URL_LIFETIME_S, MediaUrls


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = "uploads/alice/image"
URLS = MediaUrls("https://edge.test", b"s" * 32, former_base_urls=("http://old.test:8787",))


def query_of(url: str) -> tuple[str, str]:
    """Return a URL's ``expires`` and ``signature``."""
    query = parse_qs(urlsplit(url).query)
    return query["expires"][0], query["signature"][0]


def test_a_url_can_be_read_for_about_an_hour() -> None:
    """A fresh URL is good for an hour at least, and then no more."""
    expires, signature = query_of(URLS.url_for(KEY, NOW))

    left_s = URLS.seconds_left(KEY, expires, signature, NOW)
    assert MEDIA_URL_LIFETIME_S <= left_s <= MEDIA_URL_LIFETIME_S + 300
    last = NOW + timedelta(seconds=left_s - 1)
    assert URLS.seconds_left(KEY, expires, signature, last) == 1
    for later in (1, 2, 10**6):
        after = last + timedelta(seconds=later)
        assert URLS.seconds_left(KEY, expires, signature, after) == 0


def test_a_url_stays_the_same_for_minutes() -> None:
    """Browsers can cache an image, because its URL does not change with every answer."""
    begun = datetime(2026, 1, 2, 3, 0, 0, tzinfo=UTC)

    assert URLS.url_for(KEY, begun) == URLS.url_for(KEY, begun + timedelta(seconds=299))
    assert URLS.url_for(KEY, begun) != URLS.url_for(KEY, begun + timedelta(seconds=300))


@pytest.mark.parametrize(
    ("key", "expires", "signature"),
    [
        (KEY, "", ""),
        (KEY, None, ""),
        (KEY, None, "0" * 64),
        (KEY, "9999999999", None),
        (KEY, "0", None),
        (KEY, "never", None),
        (KEY, "-1", None),
        ("uploads/bob/image", None, None),
        (KEY + "/x", None, None),
        ("", None, None),
        (KEY, None, "é" * 64),
        (KEY, None, "\ud800"),
        ("\ud800", None, None),
        (KEY, "\ud800", None),
    ],
)
def test_a_url_that_was_tampered_with_is_good_for_nothing(
    key: str, expires: str | None, signature: str | None
) -> None:
    """The signature covers key and time, and garbage in its place raises nothing."""
    good_expires, good_signature = query_of(URLS.url_for(KEY, NOW))

    left_s = URLS.seconds_left(
        key,
        good_expires if expires is None else expires,
        good_signature if signature is None else signature,
        NOW,
    )
    assert left_s == 0


def test_a_signature_in_capitals_is_another_one() -> None:
    """There is one spelling of a signature."""
    expires, signature = query_of(URLS.url_for(KEY, NOW))

    assert URLS.seconds_left(KEY, expires, signature.upper(), NOW) == 0


def test_a_boundary_between_key_and_time_cannot_be_moved() -> None:
    """The signed text cannot be read as another key with another time."""
    expires, signature = query_of(URLS.url_for(KEY, NOW))

    assert URLS.seconds_left(f"{KEY}\n{expires[:5]}", expires[5:], signature, NOW) == 0
    assert URLS.seconds_left(KEY[:-1], KEY[-1] + "\n" + expires, signature, NOW) == 0


def test_another_secret_makes_another_signature() -> None:
    """Nobody else can sign for this deployment."""
    other = MediaUrls("https://edge.test", b"t" * 32)
    expires, signature = query_of(other.url_for(KEY, NOW))

    assert URLS.seconds_left(KEY, expires, signature, NOW) == 0


@pytest.mark.parametrize(
    "url",
    [
        URLS.url_for(KEY, NOW),
        f"https://edge.test/media/{KEY}",
        f"https://edge.test/media/{KEY}?expires=1&signature=0",
        f"http://old.test:8787/media/{KEY}",
    ],
)
def test_a_url_leads_back_to_its_key(url: str) -> None:
    """With any query or none, and from a former address too."""
    assert URLS.key_of(url) == KEY


@pytest.mark.parametrize(
    "url",
    [
        "",
        KEY,
        f"/media/{KEY}",
        f"//edge.test/media/{KEY}",
        f"http://edge.test/media/{KEY}",
        f"https://old.test:8787/media/{KEY}",
        f"https://edge.test:444/media/{KEY}",
        f"https://edge.test.evil.test/media/{KEY}",
        f"https://edge.test@evil.test/media/{KEY}",
        f"https://evil.test/https://edge.test/media/{KEY}",
        f"HTTPS://EDGE.TEST/media/{KEY}",
        f"https://edge.test/other/{KEY}",
        f"https://edge.test/x/media/{KEY}",
        "https://edge.test/media/",
        "https://edge.test/media",
        f"https://edge.test/media//{KEY}",
        f"https://edge.test/media/../{KEY}",
        "https://edge.test/media/uploads/alice/../bob/image",
        "https://edge.test/media/uploads/alice/%2e%2e/bob/image",
        f"https://edge.test/media/{KEY}#fragment",
        f"https://edge.test/media/{KEY}\n",
        f" https://edge.test/media/{KEY}",
        f"file:///media/{KEY}",
        "https://edge.test/media/\ud800",
    ],
)
def test_a_foreign_url_has_no_key(url: str) -> None:
    """Another host, scheme, port or path, a detour and a near miss are not ours."""
    assert URLS.key_of(url) is None


def test_the_secret_is_not_shown() -> None:
    """The secret does not appear when the value is printed."""
    assert "ssss" not in repr(URLS)
