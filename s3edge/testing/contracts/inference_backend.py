"""What any ``InferenceBackend`` must do."""

import io
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID, uuid4

import pytest
from attrs import frozen
from PIL import Image, ImageChops

from s3edge.errors import Code, EdgeError
from s3edge.ports import InferenceBackend, ObjectStorage
from s3edge.rules.keys import mask_key, unsigned, upload_key
from s3edge.testing.contracts.concurrency import at_once
from s3edge.values import BatchPredictRequest, Prediction, PredictRequest


STRIPES = {"red": (230, 20, 20), "green": (20, 200, 40), "blue": (20, 40, 230)}
"""What the suite's images show, from left to right; each is also a prompt."""

SIZE = (96, 64)

MAX_DIFFERENT = 0.01
"""How much of a mask may differ between two runs of the same model, as a share of its pixels."""


@frozen
class InferenceBackendHarness:
    """
    What the suite needs.

    Attributes:
        backend: The port under test.
        storage: The storage that the backend reads images from and writes masks to.
        put_image: Stores bytes under a media type where the backend can read them; returns the URL.
    """

    backend: InferenceBackend
    storage: ObjectStorage
    put_image: Callable[[bytes, str], Awaitable[str]]


class InferenceBackendContract:
    """
    The promises of ``InferenceBackend``, checked.

    A subclass supplies the fixture ``harness``. How good the masks are is not the suite's business.
    """

    pytestmark = pytest.mark.anyio

    async def test_check_passes(self, harness: InferenceBackendHarness) -> None:
        """The model answers, and says the same of itself afterwards."""
        before = await harness.backend.model_info()
        await harness.backend.check()
        assert await harness.backend.model_info() == before

    async def test_a_prediction_stores_its_mask(self, harness: InferenceBackendHarness) -> None:
        """Images of every accepted format and of odd sizes get a mask under the task's own key."""
        for image_format, size in (("PNG", SIZE), ("JPEG", (33, 57)), ("WEBP", (61, 17))):
            url = await harness.put_image(
                _image(image_format, size), f"image/{image_format.lower()}"
            )
            request = PredictRequest(uuid4(), uuid4(), url, "red")
            prediction = await harness.backend.predict(request)
            assert prediction.task_id == request.task_id
            assert prediction.inference_time_ms >= 0
            assert 0 <= prediction.confidence <= 1
            key = harness.storage.key_of(prediction.mask_url)
            assert key == mask_key(request.user_id, request.task_id)
            stored = await harness.storage.head(key)
            assert stored is not None
            assert stored.content_type == "image/png"
            assert (await _mask(harness.storage, prediction)).size == size

    async def test_a_repeat_gives_the_same_answer(self, harness: InferenceBackendHarness) -> None:
        """A task that is sent again, later or at the same time, has one answer and one mask."""
        url = await harness.put_image(_image("PNG", SIZE), "image/png")
        for concurrently in (False, True):
            request = PredictRequest(uuid4(), uuid4(), url, "red")
            if concurrently:
                predictions, refusals = await at_once(
                    [partial(harness.backend.predict, request)] * 4
                )
                assert refusals == []
            else:
                predictions = [await harness.backend.predict(request) for _ in range(2)]
            first = _answer(predictions[0])
            assert [_answer(prediction) for prediction in predictions] == [first] * len(predictions)

    async def test_an_unreadable_image_is_refused(self, harness: InferenceBackendHarness) -> None:
        """What is absent, no image or cut short is refused for good, and no mask is stored."""
        image = _image("PNG", SIZE)
        urls = [
            await harness.put_image(b"This is no image.", "image/png"),
            await harness.put_image(b"", "image/png"),
            await harness.put_image(image[: len(image) // 2], "image/png"),
            harness.storage.url_for(upload_key(uuid4(), uuid4())),
        ]
        for url in urls:
            request = PredictRequest(uuid4(), uuid4(), url, "red")
            with pytest.raises(EdgeError) as caught:
                await harness.backend.predict(request)
            assert (caught.value.code, caught.value.retryable) == (Code.INVALID_REQUEST, False)
            key = mask_key(request.user_id, request.task_id)
            assert await harness.storage.head(key) is None

    async def test_a_batch_answers_every_prompt(self, harness: InferenceBackendHarness) -> None:
        """Each prompt has a mask of its own, the one it has alone, where it stands in the list."""
        url = await harness.put_image(_image("PNG", SIZE), "image/png")
        task_id, prompts = uuid4(), ["blue", "red", "green"]
        batch = await harness.backend.predict_batch(
            BatchPredictRequest(task_id, uuid4(), url, prompts)
        )
        assert batch.task_id == task_id
        assert batch.total_inference_time_ms >= 0
        assert len(batch.results) == len(prompts)
        assert len({unsigned(result.mask_url) for result in batch.results}) == len(prompts)
        for prompt, result in zip(prompts, batch.results, strict=True):
            alone = await harness.backend.predict(PredictRequest(uuid4(), uuid4(), url, prompt))
            different = _difference(
                await _mask(harness.storage, result), await _mask(harness.storage, alone)
            )
            assert different <= MAX_DIFFERENT

    async def test_the_model_is_named(self, harness: InferenceBackendHarness) -> None:
        """The model has a name, a place where it runs and a size."""
        info = await harness.backend.model_info()
        assert info.model_name.strip()
        assert info.model_version.strip()
        assert info.device.strip()
        assert info.dtype.strip()
        assert info.parameters >= 0
        assert info.weights_size_gb >= 0


def _image(image_format: str, size: tuple[int, int]) -> bytes:
    """Return a file that shows the stripes on white."""
    image = Image.new("RGB", size, "white")
    width = size[0] // (2 * len(STRIPES))
    for index, colour in enumerate(STRIPES.values()):
        image.paste(colour, (2 * index * width, 0, (2 * index + 1) * width, size[1]))
    encoded = io.BytesIO()
    image.save(encoded, image_format)
    return encoded.getvalue()


async def _mask(storage: ObjectStorage, prediction: Prediction) -> Image.Image:
    """Return a prediction's mask, which must be an 8-bit greyscale PNG."""
    key = storage.key_of(prediction.mask_url)
    assert key is not None
    content = b"".join([chunk async for chunk in storage.open(key)])
    # PNG specification, section 11.2.1: bit depth and colour type stand in the first chunk.
    assert (content[:8], content[24], content[25]) == (b"\x89PNG\r\n\x1a\n", 8, 0)
    with Image.open(io.BytesIO(content)) as mask:
        mask.load()
        return mask


def _difference(one: Image.Image, other: Image.Image) -> float:
    """Return the share of pixels that differ."""
    different = ImageChops.difference(one, other).point(lambda value: 255 if value else 0)
    return different.histogram()[255] / (one.width * one.height)


def _answer(prediction: Prediction) -> tuple[UUID, str, object, float]:
    """Return what is the same in every answer: not the signature, nor how long it took."""
    return (
        prediction.task_id,
        unsigned(prediction.mask_url),
        prediction.labels,
        prediction.confidence,
    )
