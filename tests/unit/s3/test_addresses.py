"""Which URLs are a bucket's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3edge.rules.keys import is_key
from s3edge_s3.addresses import (
    BucketAddress,
    aws_address,
    custom_address,
    parse_base_url,
    r2_address,
)


KEY = "uploads/11111111-0000-4000-8000-000000000000/22222222-0000-4000-8000-000000000000"
R2 = "https://0123456789abcdef.eu.r2.cloudflarestorage.com"
PUBLIC = "https://images.example.com/media"

ADDRESSES: list[BucketAddress] = [
    r2_address(R2, "s3-images"),
    r2_address(R2, "s3-images", PUBLIC),
    aws_address("photos", "eu-central-1"),
    aws_address("photos", "eu-central-1", virtual=False),
    custom_address("http://127.0.0.1:9000", "photos", "us-east-1"),
    custom_address("https://store.example/storage/v1/s3", "photos", "auto", virtual=True),
]

SEGMENT = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", min_size=1, max_size=20
)


@pytest.mark.parametrize(
    ("address", "bases"),
    [
        (r2_address(R2, "s3-images"), [f"{R2}/s3-images"]),
        (
            r2_address(R2, "s3-images", PUBLIC),
            [
                PUBLIC,
                f"{R2}/s3-images",
                "https://s3-images.0123456789abcdef.eu.r2.cloudflarestorage.com",
            ],
        ),
        (
            aws_address("photos", "eu-central-1"),
            [
                "https://photos.s3.eu-central-1.amazonaws.com",
                "https://s3.eu-central-1.amazonaws.com/photos",
                "https://photos.s3.amazonaws.com",
            ],
        ),
        (aws_address("photos", "cn-north-1"), ["https://photos.s3.cn-north-1.amazonaws.com.cn"]),
        (custom_address("http://127.0.0.1:9000", "b", "x"), ["http://127.0.0.1:9000/b"]),
        (
            custom_address("https://s.example", "b", "x", virtual=True),
            ["https://b.s.example", "https://s.example/b"],
        ),
    ],
)
def test_a_bucket_has_several_addresses(address: BucketAddress, bases: list[str]) -> None:
    """A row may hold any: from before the public host, or signed by the GPU server its own way."""
    for base in bases:
        assert address.key_of(f"{base}/{KEY}") == KEY
        assert address.key_of(f"{base}/{KEY}?X-Amz-Signature=0123") == KEY


@pytest.mark.parametrize(
    "url",
    [
        f"{R2}/s3-images-2/{KEY}",
        f"{R2}/other/{KEY}",
        f"{R2}/{KEY}",
        f"{R2}//s3-images/{KEY}",
        f"{R2}:444/s3-images/{KEY}",
        f"{R2.upper()}/s3-images/{KEY}",
        f"{R2}/s3-images/{KEY}/",
        f"{R2}/s3-images/../s3-images/{KEY}",
        f"{R2}/s3-images/%75ploads/x",
        f"{R2}.evil.example/s3-images/{KEY}",
        f"{R2.replace('https://', 'http://')}/s3-images/{KEY}",
        f"{R2.replace('https://', 'https://user@')}/s3-images/{KEY}",
        f"https://other.r2.cloudflarestorage.com/s3-images/{KEY}",
        f"https://images.example.com/{KEY}",
        f"https://images.example.com/mediax/{KEY}",
        f"https://evil.example/?{R2}/s3-images/{KEY}",
        "",
    ],
)
def test_no_other_url_is_its_own(url: str) -> None:
    """Scheme, host, port and path are compared to the letter."""
    assert r2_address(R2, "s3-images", PUBLIC).key_of(url) is None


def test_another_buckets_host_is_not_guessed() -> None:
    """At an endpoint of one's own, a host that begins with the bucket's name may be anybody's."""
    address = custom_address("https://store.example", "evil", "auto")
    assert address.key_of(f"https://evil.store.example/{KEY}") is None
    assert (
        r2_address("https://store.example", "evil").key_of(f"https://evil.store.example/{KEY}")
        is None
    )


@given(st.sampled_from(ADDRESSES), st.lists(SEGMENT, min_size=1, max_size=4))
def test_urls_lead_back_to_keys(address: BucketAddress, segments: list[str]) -> None:
    """Every key's URL names it again; what is no key has no URL."""
    key = "/".join(segments)
    expected = key if is_key(key) else None
    assert address.key_of(address.object_url(key)) == expected
    public = address.public_url(key)
    if public is not None:
        assert address.key_of(public) == expected


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("https://Host.Example", "https://host.example"),
        ("https://host.example/", "https://host.example"),
        ("https://host.example:443/a/", "https://host.example/a"),
        ("http://host.example:80", "http://host.example"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("HTTPS://host.example", "https://host.example"),
    ],
)
def test_a_base_url_has_one_spelling(text: str, parsed: str) -> None:
    """So that URLs can be compared to the letter."""
    assert parse_base_url(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host.example",
        "//host.example",
        "ftp://host.example",
        "https://",
        "https://user:secret@host.example",
        "https://host.example?a=b",
        "https://host.example#a",
        "https://host.example:port",
        "https://host.example:99999",
        "https://ho st.example",
        "https://host.example/a b",
        "https://host.example/a//b",
        "https://[::1",
        "https://hôst.example",
    ],
)
def test_what_is_no_base_url_is_refused(text: str) -> None:
    """Without repeating it: it may hold a secret."""
    with pytest.raises(ValueError, match="must be a URL") as caught:
        parse_base_url(text)
    assert "secret" not in str(caught.value)
