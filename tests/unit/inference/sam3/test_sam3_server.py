"""SAM 3 behind the inference server: over HTTP from the request to the mask in the storage."""

import io
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import httpx
import pytest
from PIL import Image

from s3edge.memory import MemoryObjectStorage
from s3edge.rules.keys import mask_key, upload_key
from s3edge.testing import ManualClock
from s3edge_inference.predictors import PredictorOptions
from s3edge_inference.sam3.predictor import from_options
from s3edge_inference.server.app import InferenceServer
from s3edge_inference.server.options import ServerOptions
from tests.unit.inference.sam3.test_sam3_predictor import Counter, encoded, noise


pytestmark = pytest.mark.anyio

KEY = "the-secret-key"
USER = UUID("22222222-2222-4222-8222-222222222222")

IMAGE = encoded(noise(90, 40, 1))
PROMPTS = [*"abcdefghij"]


async def chunks() -> AsyncIterator[bytes]:
    """Yield the image."""
    yield IMAGE


async def test_a_batch_of_ten_prompts_encodes_the_image_once(weights: Path) -> None:
    """Ten masks in the storage, ten answers with what is in them, one run of the vision encoder."""
    predictor = from_options(
        PredictorOptions(str(weights), "cpu", vendor={"SAM3_THRESHOLD": "0.000001"})
    )
    storage = MemoryObjectStorage("http://testserver", ManualClock())
    image_key = upload_key(USER, uuid4())
    await storage.put(image_key, chunks(), content_type="image/png")
    server = InferenceServer(predictor, storage, None, ServerOptions(KEY), give_up=lambda: None)
    app = server.app()
    task = uuid4()
    asked = {
        "image_url": storage.url_for(image_key),
        "prompts": PROMPTS,
        "user_id": str(USER),
        "task_id": str(task),
    }
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://gpu.test",
            headers={"X-API-Key": KEY},
        ) as client,
    ):
        await until_loaded(client)
        images = Counter()
        hook = predictor._ready().model.vision_encoder.register_forward_hook(images)
        answer = await client.post("/api/v1/predict/batch", json=asked, timeout=60)
        hook.remove()
        info = (await client.get("/api/v1/model/info")).json()

    assert answer.status_code == 200
    assert images.sizes == [1]
    assert (info["model_name"], info["device"], info["dtype"]) == ("sam3", "cpu", "float32")
    results = answer.json()["results"]
    assert [result["labels"] for result in results] == [[prompt] for prompt in PROMPTS]
    for index, result in enumerate(results):
        assert result["model_version"] == info["model_version"]
        assert result["confidence"] == result["metadata"]["instances"][0]["score"]
        stored = b"".join([chunk async for chunk in storage.open(mask_key(USER, task, index))])
        assert Image.open(io.BytesIO(stored)).size == (90, 40)


async def until_loaded(client: httpx.AsyncClient) -> None:
    """Wait for the model, which is loaded in the background."""
    with anyio.fail_after(60):
        while not (await client.get("/health")).json()["model_loaded"]:
            await anyio.sleep(0.02)


async def test_a_model_that_cannot_be_loaded_ends_the_server(weights: Path) -> None:
    """What only loading shows is said in one line, behind which the process ends."""
    predictor = from_options(PredictorOptions(str(weights), "cuda:63"))
    storage = MemoryObjectStorage("http://testserver", ManualClock())
    ended = anyio.Event()
    server = InferenceServer(predictor, storage, None, ServerOptions(KEY), give_up=ended.set)
    app = server.app()
    with anyio.fail_after(60):
        async with app.router.lifespan_context(app):
            await ended.wait()
    assert server.failure is not None
    assert "sees no cuda:63; install the driver" in server.failure
    assert "\n" not in server.failure
