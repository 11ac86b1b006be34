"""A worker that has the model with it: the model is loaded first, and what runs at once is one batch."""

import io
import threading
from collections.abc import AsyncIterator, Sequence
from functools import partial
from uuid import UUID, uuid4

import anyio
import pytest
from PIL import Image

from s3edge.errors import Code, EdgeError
from s3edge.memory import MemoryObjectStorage
from s3edge.rules.keys import mask_key, upload_key
from s3edge.testing import ManualClock
from s3edge.testing.contracts.concurrency import at_once
from s3edge.values import ModelInfo, PredictRequest
from s3edge_inference.engine_backend import EngineBackend
from s3edge_inference.predictors import (
    Predictor,
    PredictorUnavailable,
    Segmentation,
    UnreadableImage,
)
from s3edge_inference.server.options import ServerOptions


pytestmark = pytest.mark.anyio

BATCH_SIZE = 4

TIMEOUT_S = 20.0

OPTIONS = ServerOptions(key="", batch_size=BATCH_SIZE, batch_wait_s=1.0)


class ScriptedModel(Predictor):
    """A model that waits until a test lets it go on, and remembers how much it was given at once."""

    model_name = "scripted"
    model_version = "scripted-1"

    def __init__(self) -> None:
        self.is_loading = threading.Event()
        self.may_load = threading.Event()
        self.may_run = threading.Event()
        self.may_load.set()
        self.may_run.set()
        self.failure: Exception | None = None
        self.batches: list[int] = []

    def load(self) -> None:
        """Wait for the test's leave, and load nothing."""
        self.is_loading.set()
        assert self.may_load.wait(TIMEOUT_S)
        if self.failure is not None:
            raise self.failure

    def info(self) -> ModelInfo:
        """Say what it is called."""
        return ModelInfo("scripted", "scripted-1", 0, 0.0, "cpu", "none")

    def segment(self, image: bytes, prompts: Sequence[str]) -> list[Segmentation]:
        """Return something for each prompt."""
        return [Segmentation(b"mask", (prompt,), 0.5) for prompt in prompts]

    def segment_batch(
        self, items: Sequence[tuple[bytes, Sequence[str]]]
    ) -> list[list[Segmentation] | UnreadableImage]:
        """Wait for the test's leave."""
        self.batches.append(len(items))
        assert self.may_run.wait(TIMEOUT_S)
        return super().segment_batch(items)


@pytest.fixture
def model() -> ScriptedModel:
    """Return a model that holds nobody up."""
    return ScriptedModel()


@pytest.fixture
def storage() -> MemoryObjectStorage:
    """Return an empty storage."""
    return MemoryObjectStorage("http://testserver", ManualClock())


async def upload(storage: MemoryObjectStorage, user_id: UUID) -> str:
    """Store an image of a user's, and return its address."""
    encoded = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(encoded, "PNG")

    async def chunks() -> AsyncIterator[bytes]:
        yield encoded.getvalue()

    key = upload_key(user_id, uuid4())
    await storage.put(key, chunks(), content_type="image/png")
    return storage.url_for(key)


async def test_tasks_that_run_at_once_are_one_batch(
    model: ScriptedModel, storage: MemoryObjectStorage
) -> None:
    """As many as the worker runs at once fill two batches, and no image waits for a third."""
    async with EngineBackend(model, storage, OPTIONS) as backend:
        await backend.load()
        assert backend.capacity == 2 * BATCH_SIZE
        user_id = uuid4()
        url = await upload(storage, user_id)
        requests = [PredictRequest(uuid4(), user_id, url, "red") for _ in range(backend.capacity)]
        with anyio.fail_after(TIMEOUT_S):
            predictions, refusals = await at_once([partial(backend.predict, r) for r in requests])
    assert refusals == []
    assert {prediction.task_id for prediction in predictions} == {r.task_id for r in requests}
    assert model.batches == [BATCH_SIZE, BATCH_SIZE]


async def test_nothing_is_run_before_the_model_is_loaded(
    model: ScriptedModel, storage: MemoryObjectStorage
) -> None:
    """The refusal can be tried again, so it ends no task."""
    model.may_load.clear()
    async with (
        EngineBackend(model, storage, OPTIONS) as backend,
        anyio.create_task_group() as group,
    ):
        group.start_soon(backend.load)
        await anyio.to_thread.run_sync(model.is_loading.wait, TIMEOUT_S)
        with pytest.raises(EdgeError) as caught:
            await backend.check()
        assert (caught.value.code, caught.value.retryable) == (Code.MODEL_NOT_LOADED, True)
        with pytest.raises(EdgeError) as caught:
            await backend.predict(PredictRequest(uuid4(), uuid4(), "http://x/", "red"))
        assert (caught.value.code, caught.value.retryable) == (Code.MODEL_NOT_LOADED, True)
        model.may_load.set()
    assert model.batches == []


async def test_a_model_that_cannot_be_loaded_says_why(
    model: ScriptedModel, storage: MemoryObjectStorage
) -> None:
    """In the predictor's own words, or by the kind of an error that nobody foresaw."""
    for failure, words in (
        (PredictorUnavailable("no weights; put them into ./weights"), "no weights; put them"),
        (RuntimeError("CUDA"), "the model could not be loaded (RuntimeError); see the log"),
    ):
        model.failure = failure
        async with EngineBackend(model, storage, OPTIONS) as backend:
            await backend.load()
            assert (backend.failure or "").startswith(words)


async def test_another_users_upload_is_refused(
    model: ScriptedModel, storage: MemoryObjectStorage
) -> None:
    """The server's guard is this one's too."""
    async with EngineBackend(model, storage, OPTIONS) as backend:
        await backend.load()
        url = await upload(storage, uuid4())
        with pytest.raises(EdgeError) as caught:
            await backend.predict(PredictRequest(uuid4(), uuid4(), url, "red"))
    assert caught.value.message == "The image is not one of this user's uploads."


async def test_a_model_that_hangs_is_a_failure(
    model: ScriptedModel, storage: MemoryObjectStorage
) -> None:
    """The task is for another worker, and this one is told to end."""
    model.may_run.clear()
    user_id = uuid4()
    request = PredictRequest(uuid4(), user_id, await upload(storage, user_id), "red")
    options = ServerOptions(key="", batch_timeout_s=0.1)
    with anyio.fail_after(TIMEOUT_S):
        async with EngineBackend(model, storage, options) as backend:
            await backend.load()
            with pytest.raises(EdgeError) as caught:
                await backend.predict(request)
            await backend.until_failed()
    model.may_run.set()
    assert caught.value.retryable
    assert "has not ended a batch" in (backend.failure or "")


async def test_the_end_drops_what_still_runs(
    model: ScriptedModel, storage: MemoryObjectStorage
) -> None:
    """A worker that gives a task back leaves nothing behind that would still store its mask."""
    model.may_run.clear()
    user_id = uuid4()
    request = PredictRequest(uuid4(), user_id, await upload(storage, user_id), "red")
    with anyio.fail_after(TIMEOUT_S):
        async with EngineBackend(model, storage, ServerOptions(key="")) as backend:
            await backend.load()
            async with anyio.create_task_group() as group:
                group.start_soon(backend.predict, request)
                while not model.batches:
                    await anyio.sleep(0.01)
                group.cancel_scope.cancel()
    model.may_run.set()
    assert await storage.head(mask_key(user_id, request.task_id)) is None
