"""The process of an inference server, with a predictor of somebody else's package."""

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import attrs
import httpx
import pytest

from s3edge.testing.server import InferenceProcess
from s3edge.testing.standins.image_host import HostileImageHost
from tests.waiting import eventually, wait_until_refused


PREDICTOR = '''
"""A predictor of somebody else's package: it runs until a file is there."""

import os
import time
from pathlib import Path

from s3edge.values import ModelInfo
from s3edge_inference.predictors import Predictor, PredictorUnavailable, Segmentation


class WaitingPredictor(Predictor):
    model_name = "waiting"
    model_version = "1"

    def load(self):
        match os.environ["HOW_IT_LOADS"]:
            case "without weights":
                raise PredictorUnavailable("there are no weights; set S3EDGE_MODEL_WEIGHTS")
            case "broken":
                raise RuntimeError("first line\\nsecond line")

    def info(self):
        return ModelInfo("waiting", "1", 0, 0.0, "cpu", "none")

    def segment(self, image, prompts):
        Path("running").touch()
        while not Path("may_end").exists():
            time.sleep(0.01)
        return [Segmentation(b"mask", (prompt,), 1.0) for prompt in prompts]


def make(options):
    return WaitingPredictor()
'''

KEY = {"X-API-Key": "the-key"}

WAIT_S = 30.0


@attrs.define
class Predicting:
    """A server with that predictor, and what it is asked."""

    process: InferenceProcess
    host: HostileImageHost

    def predict(self) -> httpx.Response:
        """Ask for a new task, and wait."""
        body = {
            "image_url": self.host.url("image"),
            "text_prompt": "a cat",
            "user_id": str(uuid4()),
            "task_id": str(uuid4()),
        }
        return httpx.post(
            f"{self.process.url}/api/v1/predict", json=body, headers=KEY, timeout=WAIT_S
        )

    def tasks(self) -> str:
        """Return the line of ``/metrics`` that counts what is under way."""
        answer = httpx.get(f"{self.process.url}/metrics", headers=KEY, timeout=WAIT_S)
        return next(
            line for line in answer.text.splitlines() if line.startswith("s3edge_inference_tasks ")
        )


@pytest.fixture(scope="module")
def host(scene: bytes) -> Iterator[HostileImageHost]:
    """Run a host of images."""
    with HostileImageHost(scene) as host:
        yield host


@pytest.fixture
def unstarted(tmp_path: Path, host: HostileImageHost) -> Iterator[Predicting]:
    """Install the package, and return a server that does not run yet."""
    installed = tmp_path / "installed"
    metadata = installed / "waiting-1.0.dist-info"
    metadata.mkdir(parents=True)
    (installed / "waiting_predictor.py").write_text(PREDICTOR)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: waiting\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[s3edge.predictors]\nwaiting = waiting_predictor:make\n"
    )
    settings = {
        "PYTHONPATH": str(installed),
        "HOW_IT_LOADS": "well",
        "API_SECRET_KEY": "the-key",
        "S3EDGE_PREDICTOR": "waiting",
        "S3EDGE_PUBLIC_URL": "http://127.0.0.1:8787",
        "S3EDGE_PRIVATE_IMAGE_HOSTS": f"127.0.0.1:{host.port}",
        "S3EDGE_BATCH_SIZE": "2",
    }
    process = InferenceProcess(tmp_path, settings)
    yield Predicting(process, host)
    if process.is_running():
        process.kill()


def test_a_stop_ends_what_has_begun(unstarted: Predicting) -> None:
    """SIGTERM: nobody is let in any more, what runs and what waits is answered; status 0."""
    process = unstarted.process
    process.start()
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(unstarted.predict) for _ in range(5)]
        eventually(lambda: unstarted.tasks().endswith(" 5.0"))
        eventually((process.folder / "running").exists)
        process.ask_to_stop()
        wait_until_refused(process)
        with pytest.raises(httpx.ConnectError):
            unstarted.predict()
        (process.folder / "may_end").touch()
        assert [answer.result().status_code for answer in asked] == [200] * 5
    assert process.wait() == 0
    masks = [path for path in (process.data_dir / "media" / "masks").rglob("*") if path.is_file()]
    assert len(masks) >= 5


def test_a_stop_does_not_wait_for_ever(unstarted: Predicting) -> None:
    """A model that hangs is left when the grace is over, its request sent elsewhere; status 0."""
    process = unstarted.process
    process.settings = {**process.settings, "S3EDGE_GRACE_S": "0.5"}
    process.start()
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(unstarted.predict)
        eventually((process.folder / "running").exists)
        assert process.stop() == 0
        answer = asked.result()
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "Traceback" not in process.log.read_text()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("without weights", "there are no weights; set S3EDGE_MODEL_WEIGHTS"),
        ("broken", "the model could not be loaded (RuntimeError); see the log"),
    ],
)
def test_a_model_that_cannot_be_loaded_ends_the_process(
    unstarted: Predicting, how: str, reason: str
) -> None:
    """With status 1, and the reason as the last line."""
    process = unstarted.process
    process.settings = {**process.settings, "HOW_IT_LOADS": how}
    ended = process.run("inference", "serve", "--port", "0")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == f"s3edge: {reason}"
    assert ("Traceback" in ended.stderr) == (how == "broken")


def test_a_predictor_that_cannot_be_made_ends_the_process_at_once(unstarted: Predicting) -> None:
    """The option wins over the setting; one line says what to do, before anything is served."""
    process = unstarted.process
    process.settings = {**process.settings, "S3EDGE_MODEL_DEVICE": "cuda"}
    ended = process.run("inference", "serve", "--predictor", "cpu", "--port", "0")
    assert ended.returncode == 1
    assert ended.stderr == (
        "s3edge: the predictor cpu has no weights, device or dtype to choose; leave"
        " S3EDGE_MODEL_WEIGHTS, S3EDGE_MODEL_DEVICE and S3EDGE_MODEL_DTYPE unset\n"
    )


def test_sam3_says_first_what_it_lacks(unstarted: Predicting) -> None:
    """With nothing set at all: in one line, PyTorch or, where that is installed, the weights."""
    process = unstarted.process
    process.settings = {}
    ended = process.run("inference", "serve", "--predictor", "sam3", "--port", "0")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert re.search("the package 'torch'; pip install|set S3EDGE_MODEL_WEIGHTS", ended.stderr)


def test_without_its_packages_the_server_says_what_to_install(unstarted: Predicting) -> None:
    """A gateway's installation has not all that an inference server needs."""
    program = (
        "import sys; sys.modules['prometheus_client'] = None;"
        "from s3edge.__main__ import main; sys.argv = ['s3edge', 'inference', 'serve']; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=unstarted.process.folder,
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        "s3edge: the inference server needs the package 'prometheus_client';"
        " pip install 's3edge[inference-server]'\n"
    )
