"""Weights from the hub, whose part is played by a server on this machine."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

from s3edge_inference.predictors import PredictorOptions, PredictorUnavailable
from s3edge_inference.sam3.predictor import Sam3Predictor, from_options
from tests.unit.inference.sam3.test_sam3_predictor import encoded


COMMIT = "a" * 40
TOKEN = "hf_secret"
REPOSITORY = "facebook/sam3"

IMAGE = encoded(Image.linear_gradient("L").convert("RGB"))


class Hub(ThreadingHTTPServer):
    """
    Serves the files of a folder as the hub serves those of a gated repository.

    Attributes:
        folder: Whose files.
        status: What it answers to everything, unless that is 200.
        asked: The paths that were asked for.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.status = 200
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        """Write nothing."""

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(path)
        status, headers, body = self._content(path)
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _content(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body; those that the hub's client looks at."""
        if self.server.status != 200:
            return self.server.status, {}, b""
        if REPOSITORY not in path:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if path.startswith("/api/"):
            return self._about(path.removeprefix(f"/api/models/{REPOSITORY}/"))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"X-Error-Code": "GatedRepo"}, b""
        content = (self.server.folder / path.rpartition("/")[2]).read_bytes()
        return 200, {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": COMMIT}, content

    def _about(self, question: str) -> tuple[int, dict[str, str], bytes]:
        """Answer what everybody may know of the repository."""
        if question in ("revision/main", "revision/v1"):
            return 200, {}, json.dumps({"id": REPOSITORY, "sha": COMMIT}).encode()
        if question != f"tree/{COMMIT}":
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        entries = [
            {
                "type": "file",
                "path": file.name,
                "size": file.stat().st_size,
                "oid": _etag(file.read_bytes()),
            }
            for file in self.server.folder.iterdir()
        ]
        return 200, {}, json.dumps(entries).encode()


def _etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def hub(weights: Path) -> Iterator[Hub]:
    """Run a hub."""
    with Hub(weights) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def on_hub(hub: Hub, cache: Path, name: str = REPOSITORY, **vendor: str) -> Sam3Predictor:
    """Return a predictor whose weights are on the hub."""
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_TOKEN": TOKEN} | vendor
    settings |= {"SAM3_THRESHOLD": "0.000001"}
    return from_options(PredictorOptions(name, "cpu", vendor=settings))


def refusal_of(predictor: Sam3Predictor) -> str:
    """Return what an operator reads, having looked that the token is not in it."""
    with pytest.raises(PredictorUnavailable) as refused:
        predictor.load()
    assert "\n" not in str(refused.value)
    assert TOKEN not in f"{refused.value} {predictor!r}"
    return str(refused.value)


def test_weights_come_from_the_hub_once(hub: Hub, tmp_path: Path, predictor: Sam3Predictor) -> None:
    """By name, with the account's token, into the cache; then they are there without the hub."""
    found = on_hub(hub, tmp_path)
    assert hub.asked == []
    found.load()
    assert found.segment(IMAGE, ["a"]) == predictor.segment(IMAGE, ["a"])
    assert found.model_version == predictor.model_version

    asked = len(hub.asked)
    offline = on_hub(hub, tmp_path, HF_HUB_OFFLINE="1")
    offline.load()
    hub.status = 503
    without_hub = on_hub(hub, tmp_path)
    without_hub.load()
    assert all("/resolve/" not in path for path in hub.asked[asked:])
    assert offline.model_version == without_hub.model_version == predictor.model_version


def test_a_revision_can_be_named(hub: Hub, tmp_path: Path) -> None:
    """So that new weights on the hub change no masks unasked."""
    on_hub(hub, tmp_path, f"{REPOSITORY}@v1").load()
    assert f"/api/models/{REPOSITORY}/revision/v1" in hub.asked
    refusal = refusal_of(on_hub(hub, tmp_path, f"{REPOSITORY}@v2"))
    assert refusal == (
        "the hub has no such revision: facebook/sam3@v2; correct S3EDGE_MODEL_WEIGHTS"
    )


def test_the_original_checkpoint_is_not_downloaded(weights: Path, hub: Hub, tmp_path: Path) -> None:
    """It lies beside the weights on the hub, is as large, and nothing here reads it."""
    original = weights / "sam3.pt"
    original.write_bytes(b"pickled")
    try:
        on_hub(hub, tmp_path).load()
    finally:
        original.unlink()
    assert not [path for path in hub.asked if path.endswith("sam3.pt")]


@pytest.mark.parametrize("token", ["", "hf_of_somebody_else"])
def test_a_licence_that_was_not_accepted(hub: Hub, tmp_path: Path, token: str) -> None:
    """The hub says 401; the operator reads where to accept it, and what to set."""
    assert refusal_of(on_hub(hub, tmp_path, HF_TOKEN=token)) == (
        "the hub gives facebook/sam3 only to those who accepted its licence: do so at"
        " https://huggingface.co/facebook/sam3, and set HF_TOKEN to that account's token"
    )


def test_a_name_that_the_hub_does_not_know(hub: Hub, tmp_path: Path) -> None:
    """It may also be a folder that is not there."""
    refusal = refusal_of(on_hub(hub, tmp_path, "weights/sam4"))
    assert "there is no folder weights/sam4, and the hub shows no such repository" in refusal


@pytest.mark.parametrize(
    ("vendor", "status", "reason"),
    [
        ({"HF_HUB_OFFLINE": "1"}, 200, "HF_HUB_OFFLINE is set, and its cache does not have it"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, 200, "it cannot be reached"),
        ({}, 500, "it answers 500"),
        ({}, 403, "it answers 403"),
    ],
    ids=["offline", "unreachable", "broken", "forbidden"],
)
def test_a_hub_that_does_not_help(
    hub: Hub, tmp_path: Path, vendor: dict[str, str], status: int, reason: str
) -> None:
    """Why, and how the weights can be brought otherwise."""
    hub.status = status
    assert refusal_of(on_hub(hub, tmp_path, **vendor)) == (
        f"there is no folder facebook/sam3, and it cannot be had from the hub: {reason}; run 'hf"
        " download facebook/sam3 --exclude sam3.pt --local-dir sam3' where it can, and set"
        " S3EDGE_MODEL_WEIGHTS to the folder"
    )
    if "HF_HUB_OFFLINE" in vendor:
        assert hub.asked == []


def test_a_cache_that_cannot_be_written(hub: Hub, tmp_path: Path) -> None:
    """A file has its name here; a full disk is told of in the same way."""
    (tmp_path / "hub").write_text("a file")
    refusal = refusal_of(on_hub(hub, tmp_path))
    assert "cannot be had from the hub: " in refusal
