"""An inference server is built from the same settings as a gateway, and of some that are its own."""

from pathlib import Path

import pytest

from s3edge.config import SettingsError, parse_settings
from s3edge.config.inference import build_inference, writes_outcomes
from s3edge_inference.predictors import PredictorUnavailable
from s3edge_inference.server.app import InferenceServer


ENOUGH = {"API_SECRET_KEY": "the-key", "S3EDGE_PUBLIC_URL": "http://127.0.0.1:8787"}


def built(**settings: str) -> InferenceServer:
    """Build a server that is never started."""
    parsed = parse_settings(ENOUGH | settings)
    return build_inference(parsed, bound_url="http://127.0.0.1:8000", give_up=lambda: None)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"API_SECRET_KEY": ""}, "API_SECRET_KEY: set it to what the gateway sends"),
        ({"API_SECRET_KEY": "a key"}, "API_SECRET_KEY contains spaces"),
        ({"S3EDGE_STORAGE": "memory:"}, "S3EDGE_STORAGE: memory: is this process's own"),
        ({"S3EDGE_PUBLIC_URL": ""}, "S3EDGE_STORAGE: set R2_ENDPOINT"),
        ({"S3EDGE_PREDICTOR": "nosuch"}, "S3EDGE_PREDICTOR: write one of "),
        (
            {"SUPABASE_SERVICE_ROLE_KEY": "sb_secret_x"},
            "SUPABASE_SERVICE_ROLE_KEY: it is of no use without SUPABASE_URL",
        ),
        ({"S3EDGE_BATCH_SIZE": "0"}, "S3EDGE_BATCH_SIZE: write a whole number"),
        ({"S3EDGE_BATCH_WAIT_MS": "1e3"}, "S3EDGE_BATCH_WAIT_MS: write a whole number"),
        ({"S3EDGE_PREDICT_QUEUE": "-1"}, "S3EDGE_PREDICT_QUEUE: write a whole number"),
        ({"S3EDGE_IMAGE_TIMEOUT_S": "inf"}, "S3EDGE_IMAGE_TIMEOUT_S: write a number"),
        ({"S3EDGE_PRIVATE_IMAGE_HOSTS": "http://a"}, "S3EDGE_PRIVATE_IMAGE_HOSTS: 'http://a' is"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, str], reason: str) -> None:
    """In one line that says what to do."""
    with pytest.raises(SettingsError) as caught:
        built(**settings)
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["WEIGHTS", "DEVICE", "DTYPE"])
def test_the_cpu_predictor_has_nothing_to_choose(name: str) -> None:
    """Who sets a device meant another predictor."""
    with pytest.raises(PredictorUnavailable, match="the predictor cpu has no weights"):
        built(**{f"S3EDGE_MODEL_{name}": "cuda"})


def test_image_hosts_are_an_inference_servers_own() -> None:
    """It fetches them, though it has no backend behind it."""
    assert built(S3EDGE_IMAGE_HOSTS="images.example").failure is None


def test_a_predictor_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package may be there without what its model needs."""
    metadata = tmp_path / "lacking-1.0.dist-info"
    metadata.mkdir()
    (tmp_path / "lacking_predictor.py").write_text("import torchless_nonsense\n")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lacking\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[s3edge.predictors]\nlacking = lacking_predictor:make\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError, match=r"'lacking' needs the package 'torchless_nonsense'"):
        built(S3EDGE_PREDICTOR="lacking")


@pytest.mark.parametrize(
    ("settings", "writes"),
    [
        ({}, False),
        ({"S3EDGE_DATABASE": "memory:"}, False),
        ({"S3EDGE_DATABASE": "postgresql://u:p@db/x"}, True),
        ({"SUPABASE_URL": "https://x.supabase.co"}, False),
        (
            {"SUPABASE_URL": "https://x.supabase.co", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_x"},
            True,
        ),
    ],
)
def test_who_holds_the_key_writes_outcomes(settings: dict[str, str], *, writes: bool) -> None:
    """A database that only the gateway's machine has is left to the gateway."""
    assert writes_outcomes(parse_settings(ENOUGH | settings)) == writes
