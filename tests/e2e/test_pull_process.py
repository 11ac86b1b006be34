"""The process of a pull worker, where there is no queue to work on yet."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define

from s3edge.testing.server import PullProcess


TIMEOUT_S = 30.0

BUCKET = {
    "R2_ENDPOINT": "http://127.0.0.1:9",
    "R2_ACCESS_KEY_ID": "a",
    "R2_SECRET_ACCESS_KEY": "b",
}

POSTGRES = {"S3EDGE_DATABASE": "postgresql://u:hidden-word@127.0.0.1:9/d"}

QUEUE = {"S3EDGE_DISPATCH": "procrastinate"}


@pytest.mark.parametrize(
    ("command", "settings", "complaint"),
    [
        ("inference work", {}, "S3EDGE_DISPATCH=inline: the servers run tasks by themselves"),
        (
            "inference work",
            {**QUEUE, **BUCKET},
            "S3EDGE_DISPATCH: a queue needs S3EDGE_DATABASE=postgresql://...",
        ),
        (
            "inference work",
            {**QUEUE, **POSTGRES, "S3EDGE_STORAGE": "memory:"},
            "S3EDGE_STORAGE: memory: is this process's own",
        ),
        (
            "inference work",
            {**QUEUE, **POSTGRES},
            "S3EDGE_STORAGE: set R2_ENDPOINT and the other R2_ names as the gateway has them",
        ),
        ("inference work", {"S3EDGE_PREDICTOR": "cup"}, "S3EDGE_PREDICTOR: write one of cpu"),
        (
            "worker",
            {**QUEUE, **POSTGRES, "S3EDGE_STORAGE": "memory:"},
            "S3EDGE_STORAGE: memory: is this process's own",
        ),
        (
            "worker",
            {**QUEUE, **POSTGRES},
            "S3EDGE_STORAGE: set R2_ENDPOINT and the other R2_ names as the gateway has them",
        ),
        (
            "worker",
            {**QUEUE, **POSTGRES, **BUCKET, "S3EDGE_BACKEND": "queue:"},
            "S3EDGE_BACKEND: queue: is for gateways, and this worker needs a model",
        ),
        (
            "serve --port 0",
            {"S3EDGE_BACKEND": "queue:"},
            "S3EDGE_BACKEND: queue: leaves tasks to workers; set S3EDGE_DISPATCH=procrastinate, too",
        ),
    ],
)
def test_wrong_settings_say_what_to_do(
    tmp_path: Path, command: str, settings: dict[str, str], complaint: str
) -> None:
    """One line, status 2, and no password in it."""
    told = PullProcess(tmp_path, settings).run(*command.split())
    assert told.returncode == 2
    assert told.stderr.startswith(f"s3edge: {complaint}")
    assert told.stderr.count("\n") == 1
    assert "hidden-word" not in told.stderr


PREDICTOR = '''
"""A predictor of somebody else's package."""

import os
import time

from s3edge.values import ModelInfo
from s3edge_inference.predictors import Predictor, PredictorUnavailable


class Slow(Predictor):
    model_name = "slow"
    model_version = "1"

    def load(self):
        match os.environ["HOW_IT_LOADS"]:
            case "without weights":
                raise PredictorUnavailable("there are no weights; set S3EDGE_MODEL_WEIGHTS")
            case "slowly":
                time.sleep(600)

    def info(self):
        return ModelInfo("slow", "1", 0, 0.0, "cpu", "none")


def make(options):
    return Slow()
'''


@define
class LoadingProcess(PullProcess):
    """One that has begun to load its model."""

    announcement = re.compile(r"(slow) is being loaded")


@pytest.fixture
def loading(tmp_path: Path) -> Iterator[LoadingProcess]:
    """Install that package, and return a worker with it that does not run yet."""
    metadata = tmp_path / "installed" / "slow-1.0.dist-info"
    metadata.mkdir(parents=True)
    (tmp_path / "installed" / "slow_predictor.py").write_text(PREDICTOR)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: slow\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[s3edge.predictors]\nslow = slow_predictor:make\n")
    settings = {
        "PYTHONPATH": str(tmp_path / "installed"),
        "HOW_IT_LOADS": "slowly",
        "S3EDGE_PREDICTOR": "slow",
        **QUEUE,
        **POSTGRES,
        **BUCKET,
    }
    process = LoadingProcess(tmp_path, settings)
    yield process
    if process.is_running():
        process.kill()


def test_a_model_that_cannot_be_loaded_ends_it(loading: LoadingProcess) -> None:
    """At once, with what to do as the last line and status 1, though the database is down, too."""
    loading.settings = {**loading.settings, "HOW_IT_LOADS": "without weights"}
    loading.start()
    assert loading.wait() == 1
    lines = loading.log.read_text().splitlines()
    assert lines[1:] == ["s3edge: there are no weights; set S3EDGE_MODEL_WEIGHTS"]


def test_a_stop_does_not_wait_for_the_model(loading: LoadingProcess) -> None:
    """However long the model takes to load; nothing was taken, and the status is 0."""
    loading.start()
    assert loading.stop() == 0
    assert "Working on the queue" not in loading.log.read_text()


def test_nothing_is_taken_while_the_storage_cannot_be_used(loading: LoadingProcess) -> None:
    """Every task would end in error; so it says what it waits for, until it is there or a stop comes."""
    loading.settings = {**loading.settings, "HOW_IT_LOADS": "at once"}
    loading.start()
    ends_at = time.monotonic() + TIMEOUT_S
    while "no task can be taken yet: the storage: " not in loading.log.read_text():
        assert time.monotonic() < ends_at
        time.sleep(0.05)
    assert loading.stop() == 0
    assert "Working on the queue" not in loading.log.read_text()
