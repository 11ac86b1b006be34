"""Settings are read as the contract writes them, and a wrong one is named."""

import re
from pathlib import Path

import pytest
from attrs import evolve

from s3edge.config import SettingsError, build, build_parts, parse_settings
from s3edge.config.settings import SETTINGS
from s3edge.values import RequestKind, Tier


ROOT = Path(__file__).parents[3]


def test_nothing_set_is_the_embedded_default() -> None:
    """With an empty environment everything runs on this machine."""
    settings = parse_settings({})
    assert settings.auth == "local"
    assert settings.database == "sqlite:///.s3edge/s3edge.db"
    assert settings.storage == (Path.cwd() / ".s3edge" / "media").as_uri()
    assert (settings.backend, settings.rate_limit_store) == ("cpu:", "memory:")
    assert (settings.initial_credits, settings.segment_cost) == (100, 1)
    assert (settings.task_deadline_s, settings.predict_timeout_s) == (900, 120)
    assert settings.dispatch_concurrency == 64
    assert settings.cors_origins == ("*",)


def test_the_seeds_names_pick_the_adapters() -> None:
    """Supabase, R2 and a GPU server are used as soon as their own names are set."""
    settings = parse_settings(
        {
            "SUPABASE_URL": "https://x.supabase.co",
            "R2_ENDPOINT": "https://y.r2.cloudflarestorage.com",
            "VASTAI_BACKEND_URL": "http://gpu:8000",
        }
    )
    assert (settings.auth, settings.database) == ("supabase", "supabase")
    assert (settings.storage, settings.backend) == ("r2", "http://gpu:8000")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("S3EDGE_INITIAL_CREDITS", "-1"),
        ("S3EDGE_INITIAL_CREDITS", "many"),
        ("S3EDGE_SEGMENT_COST", "1.5"),
        ("S3EDGE_TASK_DEADLINE_S", "0"),
        ("S3EDGE_PREDICT_TIMEOUT_S", "nan"),
        ("S3EDGE_PREDICT_TIMEOUT_S", "inf"),
        ("S3EDGE_DISPATCH_CONCURRENCY", "0"),
        ("S3EDGE_RATE_LIMITS", "free.segment=5"),
        ("S3EDGE_RATE_LIMITS", "gold.segment=5/minute"),
        ("S3EDGE_RATE_LIMIT_FAILURE", "maybe"),
        ("S3EDGE_TIER_CLAIM", "app metadata"),
        ("S3EDGE_CORS_ORIGINS", "app.example"),
        ("S3EDGE_TRUSTED_PROXIES", "10.0.0.0/99"),
        ("S3EDGE_PUBLIC_URL", "api.example"),
        ("S3EDGE_LOG", "loud"),
        ("S3EDGE_DATA_DIR", "a\nb"),
    ],
)
def test_a_malformed_setting_is_named_in_one_line(name: str, value: str) -> None:
    """The message begins with the setting's name and has no line break."""
    with pytest.raises(SettingsError) as caught:
        parse_settings({name: value})
    assert re.fullmatch(rf"{name}: \S.*", str(caught.value))


def test_a_misspelt_setting_is_found() -> None:
    """A name with the prefix that is none of ours stops the start and says which was meant."""
    with pytest.raises(
        SettingsError, match=r"S3EDGE_RATE_LIMIT: .* did you mean S3EDGE_RATE_LIMITS"
    ):
        parse_settings({"S3EDGE_RATE_LIMIT": "off"})


def test_image_hosts_need_a_server_that_can_fetch() -> None:
    """The in-process backend reads our own storage only, so further hosts would never work."""
    settings = parse_settings({"S3EDGE_IMAGE_HOSTS": "images.example"})
    with pytest.raises(SettingsError, match="S3EDGE_IMAGE_HOSTS"):
        build(settings, bound_url="http://127.0.0.1:8787")
    with pytest.raises(SettingsError, match="S3EDGE_IMAGE_HOSTS"):
        build_parts(settings, bound_url="http://127.0.0.1:8787")


def test_limits_are_overridden_one_by_one() -> None:
    """An override changes its own limit and leaves the others."""
    limits = parse_settings({"S3EDGE_RATE_LIMITS": "free.segment=5/hour"}).rate_limits
    assert limits is not None
    changed = limits.of(Tier.FREE, RequestKind.SEGMENT)
    assert (changed.quota, changed.window_s) == (5, 3600)
    assert limits.of(Tier.FREE, RequestKind.UPLOAD).quota == 10
    assert parse_settings({"S3EDGE_RATE_LIMITS": "off"}).rate_limits is None


def test_no_secret_is_in_the_representation() -> None:
    """What may hold a password is left out of what a log would show."""
    settings = parse_settings({"S3EDGE_DATABASE": "postgresql://u:hunter2@db/x"})
    assert "hunter2" not in repr(settings)


def test_the_example_file_has_every_setting_and_is_good() -> None:
    """Each setting is in ``.env.example`` once, and its values are what they say."""
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    pairs = [re.fullmatch(r"# ([A-Z0-9_]+)=(.*)", line) for line in lines]
    given = [(match[1], match[2]) for match in pairs if match is not None]
    assert [name for name, _ in given] == list(SETTINGS)
    assert evolve(parse_settings(dict(given)), vendor={}) == parse_settings({})
