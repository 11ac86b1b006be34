"""The settings: what they make, and what is said of those that are wrong."""

import socket
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest

from s3edge.gateway import RandomIds
from s3edge.plugins import STORAGES, load
from s3edge.ports import Examinable, Wiring
from s3edge.rules.claims import DEFAULT_TIER_CLAIM
from s3edge.testing import ManualClock
from s3edge_s3.presets import LENDER_TRIES, from_r2, from_s3_url
from s3edge_s3.storage import S3ObjectStorage


SECRET = "hunter2hunter2"
R2 = {
    "R2_ENDPOINT": "https://0123456789abcdef.r2.cloudflarestorage.com",
    "R2_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "R2_SECRET_ACCESS_KEY": SECRET,
}
AWS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}


def wiring(vendor: Mapping[str, str]) -> Wiring:
    """Return what a factory is told."""
    return Wiring(
        data_dir=Path(),
        public_url="http://testserver",
        clock=ManualClock(),
        ids=RandomIds(),
        initial_credits=100,
        segment_cost=1,
        task_deadline_s=900,
        tier_claim=DEFAULT_TIER_CLAIM,
        vendor=vendor,
    )


@pytest.fixture(autouse=True)
def _no_chain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let botocore find nothing of this machine's."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.mark.parametrize("scheme", ["r2", "s3"])
def test_the_schemes_are_installed(scheme: str) -> None:
    """The settings find the factories by their entry points."""
    assert load(STORAGES, scheme) in (from_r2, from_s3_url)


@pytest.mark.parametrize(
    ("further", "start"),
    [
        ({}, "https://0123456789abcdef.r2.cloudflarestorage.com/s3-images/a?X-Amz-"),
        ({"R2_BUCKET": "mine"}, "https://0123456789abcdef.r2.cloudflarestorage.com/mine/a?X-Amz-"),
        (
            {"R2_BUCKET": "mine", "R2_ENDPOINT": f"{R2['R2_ENDPOINT']}/mine/"},
            "https://0123456789abcdef.r2.cloudflarestorage.com/mine/a?X-Amz-",
        ),
        ({"R2_PUBLIC_BASE_URL": "https://images.example.com/"}, "https://images.example.com/a"),
        (
            {"R2_PUBLIC_BASE_URL": " "},
            "https://0123456789abcdef.r2.cloudflarestorage.com/s3-images/a?",
        ),
    ],
)
def test_r2(further: Mapping[str, str], start: str) -> None:
    """Path style, region ``auto``; public URLs where there is a public host."""
    storage = from_r2("r2", wiring({**R2, **further}))
    url = storage.url_for("a")
    assert url.startswith(start)
    assert storage.key_of(url) == "a"
    if "?" in url:
        assert "%2Fauto%2Fs3%2Faws4_request" in url
    assert isinstance(storage, Examinable)


@pytest.mark.parametrize(
    ("value", "start", "region"),
    [
        (
            "s3://photos?region=eu-central-1",
            "https://photos.s3.eu-central-1.amazonaws.com/a?",
            "eu-central-1",
        ),
        (
            "s3://photos?region=eu-central-1&addressing=path",
            "https://s3.eu-central-1.amazonaws.com/photos/a?",
            "eu-central-1",
        ),
        (
            "s3://my.photos?region=eu-central-1",
            "https://s3.eu-central-1.amazonaws.com/my.photos/a?",
            "eu-central-1",
        ),
        (
            "s3://photos?endpoint=http://127.0.0.1:9000",
            "http://127.0.0.1:9000/photos/a?",
            "us-east-1",
        ),
        (
            "s3://photos?endpoint=https%3A%2F%2Fs.example&region=x-1&addressing=virtual",
            "https://photos.s.example/a?",
            "x-1",
        ),
        (
            "s3://photos?endpoint=https://p.example/storage/v1/s3&region=local",
            "https://p.example/storage/v1/s3/photos/a?",
            "local",
        ),
        ("s3://photos?region=x&public_base_url=https://i.example", "https://i.example/a", None),
    ],
)
def test_s3(value: str, start: str, region: str | None) -> None:
    """Amazon's by host, others' by path, unless it is said otherwise."""
    storage = from_s3_url(value, wiring(AWS))
    url = storage.url_for("a")
    assert url.startswith(start)
    assert storage.key_of(url) == "a"
    if region is not None:
        assert f"%2F{region}%2Fs3%2Faws4_request" in url


def test_a_lent_key_has_a_token() -> None:
    """The session token is taken from the environment too."""
    storage = from_s3_url(
        "s3://photos?region=eu-central-1", wiring({**AWS, "AWS_SESSION_TOKEN": "lent"})
    )
    assert "X-Amz-Security-Token=lent" in storage.url_for("a")


def test_botocore_finds_the_key(tmp_path: Path) -> None:
    """Without names of one's own, botocore looks where it always does."""
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = FROMAFILE\naws_secret_access_key = x\n"
    )
    url = from_s3_url("s3://photos?region=eu-central-1", wiring({})).url_for("a")
    assert "X-Amz-Credential=FROMAFILE%2F" in url


def test_a_program_that_lends_keys_and_is_not_there_is_said(tmp_path: Path) -> None:
    """Whatever botocore lets through, it is a setting's fault, on one line."""
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {tmp_path}/none {SECRET}\n")
    with pytest.raises(ValueError, match=r"AWS_ACCESS_KEY_ID.*FileNotFoundError") as caught:
        from_s3_url("s3://photos?region=eu-central-1", wiring({}))
    assert SECRET not in str(caught.value)


ROLES = {
    "assume-role": "role_arn = arn:aws:iam::123456789012:role/r\nsource_profile = source\n",
    "assume-role-with-web-identity": (
        "role_arn = arn:aws:iam::123456789012:role/r\nweb_identity_token_file = {token}\n"
    ),
}


@pytest.mark.parametrize("kind", ROLES)
@pytest.mark.anyio
async def test_a_token_service_that_says_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """After our limits and not botocore's, which are minutes: else nobody asks when it is back."""
    monkeypatch.setattr("s3edge_s3.presets.LENDER_ANSWER_S", 0.05)
    (tmp_path / "token").write_text("token")
    (tmp_path / "credentials").write_text(
        "[source]\naws_access_key_id = A\naws_secret_access_key = B\n"
    )
    role = ROLES[kind].format(token=tmp_path / "token")
    (tmp_path / "config").write_text(f"[default]\nregion = eu-central-1\n{role}")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{port}")
        storage = from_s3_url("s3://photos?region=eu-central-1", wiring({}))
        assert isinstance(storage, S3ObjectStorage)
        async with storage:
            with anyio.fail_after(30):
                while "could not be renewed" not in caplog.text:
                    await anyio.sleep(0.01)
        silent.settimeout(0)
        for _ in range(LENDER_TRIES):
            silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert "could not be renewed: ReadTimeoutError" in caplog.text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"R2_ENDPOINT": ""}, "R2_ENDPOINT"),
        ({"R2_ACCESS_KEY_ID": " "}, "R2_ACCESS_KEY_ID"),
        ({"R2_SECRET_ACCESS_KEY": ""}, "R2_SECRET_ACCESS_KEY"),
        ({"R2_SECRET_ACCESS_KEY": f"{SECRET}\n{SECRET}"}, "R2_SECRET_ACCESS_KEY"),
        ({"R2_ACCESS_KEY_ID": "ключ"}, "R2_ACCESS_KEY_ID"),
        ({"R2_ACCESS_KEY_ID": "0123456789abcdef" * 4}, "exchange it with R2_SECRET_ACCESS_KEY"),
        ({"R2_BUCKET": "My_Bucket"}, "R2_BUCKET"),
        ({"R2_BUCKET": "a/../b"}, "R2_BUCKET"),
        ({"R2_BUCKET": "a..b"}, "R2_BUCKET"),
        ({"R2_ENDPOINT": "0123.r2.cloudflarestorage.com"}, "R2_ENDPOINT"),
        ({"R2_ENDPOINT": f"https://x:{SECRET}@host.example"}, "R2_ENDPOINT"),
        ({"R2_ENDPOINT": "https://host.example/other-bucket"}, "R2_ENDPOINT"),
        ({"R2_PUBLIC_BASE_URL": "images.example.com"}, "R2_PUBLIC_BASE_URL"),
        ({"R2_PUBLIC_BASE_URL": f"https://i.example?key={SECRET}"}, "R2_PUBLIC_BASE_URL"),
    ],
)
def test_a_wrong_r2_setting_is_named(changed: Mapping[str, str], said: str) -> None:
    """One line, with the setting's name and without its value."""
    with pytest.raises(ValueError, match=said) as caught:
        from_r2("r2", wiring({**R2, **changed}))
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "vendor", "said"),
    [
        ("s3://photos", AWS, "region"),
        ("s3:", AWS, "the bucket"),
        ("s3://", AWS, "the bucket"),
        ("s3://Photos?region=x", AWS, "the bucket"),
        ("s3://photos/folder?region=x", AWS, "the bucket alone"),
        ("s3://photos?region=x#a", AWS, "the bucket alone"),
        (f"s3://me:{SECRET}@photos?region=x", AWS, "AWS_SECRET_ACCESS_KEY"),
        (f"s3://photos?region=x&secret={SECRET}", AWS, "'secret'"),
        ("s3://photos?region=x&region=y", AWS, "region: give it once"),
        ("s3://photos?region=", AWS, "region: give it once"),
        ("s3://photos?region", AWS, "write it as"),
        ("s3://photos?region=EU Central", AWS, "region: write it"),
        ("s3://photos?region=x&addressing=host", AWS, "addressing: write"),
        (f"s3://photos?endpoint=https://a:{SECRET}@b.example", AWS, "endpoint"),
        ("s3://photos?region=x&public_base_url=b.example", AWS, "public_base_url"),
        ("s3://[photos?region=x", AWS, "write it as"),
        ("s3://photos?region=x", {"AWS_ACCESS_KEY_ID": "x"}, "both AWS_ACCESS_KEY_ID and"),
        ("s3://photos?region=x", {"AWS_SECRET_ACCESS_KEY": SECRET}, "both AWS_ACCESS_KEY_ID and"),
        ("s3://photos?region=x", {}, "AWS_ACCESS_KEY_ID"),
    ],
)
def test_a_wrong_s3_setting_is_explained(value: str, vendor: Mapping[str, str], said: str) -> None:
    """One line that says what to write, and no secret."""
    with pytest.raises(ValueError, match=said) as caught:
        from_s3_url(value, wiring(vendor))
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_r2_names_its_bucket_elsewhere() -> None:
    """A URL in place of ``r2`` is not half understood."""
    with pytest.raises(ValueError, match="R2_BUCKET"):
        from_r2("r2://mine", wiring(R2))


def test_no_secret_is_in_what_is_printed() -> None:
    """A storage and its parts can be logged."""
    for storage in (
        from_r2("r2", wiring(R2)),
        from_s3_url("s3://photos?region=x", wiring(AWS)),
    ):
        storage.url_for("a")
        parts = [storage, *vars(storage).values()]
        parts += [part for whole in parts[1:] for part in getattr(whole, "__dict__", {}).values()]
        assert SECRET not in repr(parts)
