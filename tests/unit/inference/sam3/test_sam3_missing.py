"""What an operator reads who lacks a library; runs with and without them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from s3edge.plugins import PREDICTORS, load
from s3edge_inference.predictors import PredictorOptions, PredictorUnavailable
from s3edge_inference.sam3.predictor import from_options


LIBRARIES = ("torch", "transformers", "safetensors", "huggingface_hub")

Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what puts empty libraries first on the path, with a version of transformers."""

    def installed(version: str) -> None:
        for name in LIBRARIES:
            (tmp_path / f"{name}.py").write_text("raise RuntimeError('nothing is to be imported')")
        about = tmp_path / f"transformers-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: transformers\nVersion: {version}\n"
        )
        for name in LIBRARIES:
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(tmp_path)

    return installed


@pytest.fixture
def serve(tmp_path: Path) -> Callable[[], str]:
    """Return what starts an inference server in vain and returns what it said."""

    def served() -> str:
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        settings = {
            "API_SECRET_KEY": "the-secret-key",
            "PYTHONPATH": path,
            "S3EDGE_DATA_DIR": str(tmp_path / "data"),
            "S3EDGE_PUBLIC_URL": "http://gpu.test",
        }
        command = ["s3edge", "inference", "serve", "--predictor", "sam3", "--port", "0"]
        ended = subprocess.run(
            [sys.executable, "-m", *command],
            env=os.environ | settings,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ended.returncode, ended.stdout) == (1, "")
        return ended.stderr

    return served


def refusal() -> str:
    """Return what is said without settings."""
    with pytest.raises(PredictorUnavailable) as refused:
        from_options(PredictorOptions())
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_it_is_found_by_its_name() -> None:
    """``S3EDGE_PREDICTOR=sam3`` finds the factory, and needs no library for that."""
    factory: object = load(PREDICTORS, "sam3")
    assert factory is from_options


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_missing_library_is_named(
    install: Install, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With the extra that brings it."""
    install("5.24.0")
    monkeypatch.setitem(sys.modules, name, None)
    assert refusal() == (
        f"the predictor sam3 needs the package '{name}'; pip install 's3edge[sam3]'"
    )


@pytest.mark.parametrize("version", ["4.57.6", "5.0.0", "5.23.0"])
def test_an_old_transformers_is_named(install: Install, version: str) -> None:
    """It may know SAM 3, and still not fill the model with today's weights."""
    install(version)
    assert refusal() == (
        f"transformers {version} is too old for SAM 3; pip install 'transformers>=5.24,<6'"
    )


@pytest.mark.parametrize("version", ["5.24.0", "5.100.1", "6.0.0rc1"])
def test_with_all_libraries_weights_are_asked_for(install: Install, version: str) -> None:
    """Nothing heavy is imported to say so."""
    install(version)
    assert refusal() == (
        "sam3 has no weights; accept the licence at https://huggingface.co/facebook/sam3, then run"
        " 'hf auth login' and 'hf download facebook/sam3 --exclude sam3.pt --local-dir sam3' and set"
        " S3EDGE_MODEL_WEIGHTS=./sam3"
    )


def test_a_server_without_weights_ends_at_once(install: Install, serve: Callable[[], str]) -> None:
    """In one line, with where to get them and where to put them."""
    install("5.24.0")
    said = serve()
    assert said.count("\n") == 1
    assert "hf download facebook/sam3" in said
    assert said.endswith("and set S3EDGE_MODEL_WEIGHTS=./sam3\n")


def test_a_server_without_a_library_ends_at_once(
    install: Install, serve: Callable[[], str]
) -> None:
    """In one line, with what to install."""
    install("4.57.6")
    said = serve()
    assert said.count("\n") == 1
    assert said.endswith("too old for SAM 3; pip install 'transformers>=5.24,<6'\n")
