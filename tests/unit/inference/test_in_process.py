"""A predictor in worker processes: what the contract suite does not ask of every backend."""

import io
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import pytest
from attrs import frozen
from PIL import Image

from s3edge.errors import Code, EdgeError
from s3edge.memory import MemoryObjectStorage
from s3edge.rules.keys import mask_key, upload_key
from s3edge.testing import ManualClock
from s3edge.values import ModelInfo, PredictRequest
from s3edge_inference.in_process import InProcessBackend
from s3edge_inference.predictors import Predictor, Segmentation


pytestmark = pytest.mark.anyio


@frozen
class CountingPredictor(Predictor):
    """Notes each run in a file, and can end its own process as a lack of memory would."""

    runs: Path
    dies: bool = False
    model_name: str = "counting"
    model_version: str = "1"

    def load(self) -> None:
        """Implement ``Predictor``: there is nothing to load."""

    def info(self) -> ModelInfo:
        """Implement ``Predictor``."""
        return ModelInfo(self.model_name, self.model_version, 0, 0.0, "cpu", "none")

    def segment(self, image: bytes, prompts: Sequence[str]) -> list[Segmentation]:
        """Implement ``Predictor``."""
        with self.runs.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return [Segmentation(image, ("all",), 1.0) for _ in prompts]


@pytest.fixture
def storage() -> MemoryObjectStorage:
    """Keep objects in memory."""
    return MemoryObjectStorage("http://testserver", ManualClock())


async def request_for(storage: MemoryObjectStorage) -> PredictRequest:
    """Store an image and ask for its segmentation."""
    user_id = uuid4()
    encoded = io.BytesIO()
    Image.new("L", (4, 4)).save(encoded, "PNG")

    async def chunks() -> AsyncIterator[bytes]:
        yield encoded.getvalue()

    key = upload_key(user_id, uuid4())
    await storage.put(key, chunks(), content_type="image/png")
    return PredictRequest(uuid4(), user_id, storage.url_for(key), "all")


async def test_a_task_runs_once_however_often_it_is_asked(
    storage: MemoryObjectStorage, tmp_path: Path
) -> None:
    """Twenty requests at once and one later cause one run, in another process than ours."""
    runs = tmp_path / "runs"
    backend = InProcessBackend(storage, CountingPredictor(runs))
    request = await request_for(storage)
    answers = []

    async def predict() -> None:
        answers.append(await backend.predict(request))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(predict)
    await predict()
    assert all(answer == answers[0] for answer in answers)
    assert len(runs.read_text().split()) == 1
    assert runs.read_text().split() != [str(os.getpid())]
    assert await storage.head(mask_key(request.user_id, request.task_id)) is not None


async def test_a_worker_that_dies_is_a_passing_fault(
    storage: MemoryObjectStorage, tmp_path: Path
) -> None:
    """The caller may try again; the gateway itself lives on."""
    dying = InProcessBackend(storage, CountingPredictor(tmp_path / "runs", dies=True))
    with pytest.raises(EdgeError) as caught:
        await dying.predict(await request_for(storage))
    assert (caught.value.code, caught.value.retryable) == (Code.INFERENCE_FAILED, True)
    living = InProcessBackend(storage, CountingPredictor(tmp_path / "runs"))
    assert (await living.predict(await request_for(storage))).labels == ["all"]


async def test_a_run_that_is_given_up_leaves_no_mask(
    storage: MemoryObjectStorage, tmp_path: Path
) -> None:
    """A timeout ends the wait, and a later attempt runs anew."""
    backend = InProcessBackend(storage, CountingPredictor(tmp_path / "runs"))
    request = await request_for(storage)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await backend.predict(request)
    assert await storage.head(mask_key(request.user_id, request.task_id)) is None
    assert (await backend.predict(request)).task_id == request.task_id


async def test_an_image_of_somewhere_else_is_refused(
    storage: MemoryObjectStorage, tmp_path: Path
) -> None:
    """This backend reads its own storage only, and never the network."""
    backend = InProcessBackend(storage, CountingPredictor(tmp_path / "runs"))
    for url in ("http://evil.example/x.png", "file:///etc/passwd", storage.url_for("uploads/a/b")):
        with pytest.raises(EdgeError) as caught:
            await backend.predict(PredictRequest(UUID(int=1), uuid4(), url, "x"))
        assert (caught.value.code, caught.value.retryable) == (Code.INVALID_REQUEST, False)
