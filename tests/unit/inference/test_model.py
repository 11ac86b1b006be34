"""What a predictor may do to the server that runs it: fail, on the image that it was given."""

import asyncio
import concurrent.futures
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from attrs import evolve

from s3edge.errors import Code, EdgeError
from s3edge.values import ModelInfo
from s3edge_inference.inference_api import MAX_ANSWER_BYTES
from s3edge_inference.predictors import GpuMemory, Predictor, PredictorUnavailable, Segmentation
from s3edge_inference.server.model import Model


pytestmark = pytest.mark.anyio

TIMEOUT_S = 10.0

IMAGE = b"an image"


class WhimsicalModel(Predictor):
    """A model that does, or says, whatever the prompt is in its book."""

    model_name = "whimsical"
    model_version = "1"

    def __init__(self, book: Mapping[str, Callable[[], object]]) -> None:
        self._book = book

    def load(self) -> None:
        """Do what the book has for it."""
        self._book.get("load", lambda: None)()

    def info(self) -> ModelInfo:
        """Say which it is."""
        return ModelInfo("whimsical", "1", 0, 0.0, "cuda:0", "none")

    def memory(self) -> GpuMemory | None:
        """Do what the book has for it."""
        self._book.get("memory", lambda: None)()
        return GpuMemory("Whimsical GPU", 1.0, 2.0)

    def segment(self, image: bytes, prompts: Sequence[str]) -> list[Segmentation]:
        """Answer from the book; any other prompt well."""
        said = [self._book.get(prompt, dict)() for prompt in prompts]
        return [answer_with(**(fields if isinstance(fields, dict) else {})) for fields in said]


def answer_with(**fields: Any) -> Segmentation:
    """Return a good answer but for some fields."""
    good: dict[str, Any] = {"mask_png": b"mask", "labels": ("a cat",), "confidence": 0.5}
    return Segmentation(**{**good, **fields})


def loadable(predictor: Predictor) -> Model:
    """Return a model that has time."""
    return Model(predictor, timeout_s=TIMEOUT_S)


def raising(error: BaseException) -> Callable[[], object]:
    """Return a page of the book."""

    def page() -> object:
        raise error

    return page


def nested(depth: int) -> object:
    """Return lists in lists."""
    value: object = []
    for _ in range(depth):
        value = [value]
    return value


NOT_THE_CALLERS = [
    StopIteration(),
    concurrent.futures.CancelledError(),
    asyncio.CancelledError(),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
]


@pytest.mark.parametrize("error", NOT_THE_CALLERS, ids=lambda error: type(error).__name__)
async def test_whatever_a_model_raises_is_one_images_failure(error: BaseException) -> None:
    """The next image of the batch, and the next batch, go through."""
    model = loadable(WhimsicalModel({"whim": raising(error)}))
    async with asyncio.timeout(TIMEOUT_S):
        await model.load()
        failed, well = await model.run([(IMAGE, ["whim"]), (IMAGE, ["a cat"])])
        [again] = await model.run([(IMAGE, ["a cat"])])
    assert isinstance(failed, EdgeError)
    assert (failed.code, failed.retryable) == (Code.INFERENCE_FAILED, False)
    assert well == again == [answer_with()]


@pytest.mark.parametrize("error", NOT_THE_CALLERS, ids=lambda error: type(error).__name__)
async def test_whatever_loading_raises_is_an_error(error: BaseException) -> None:
    """The server ends with a line that says so, and the log has the cause."""
    model = loadable(WhimsicalModel({"load": raising(error)}))
    async with asyncio.timeout(TIMEOUT_S):
        with pytest.raises(RuntimeError, match=type(error).__name__) as caught:
            await model.load()
    assert caught.value.__cause__ is error
    assert not model.is_loaded


UNBELIEVABLE: Mapping[str, tuple[dict[str, object], str]] = {
    "nan": ({"confidence": math.nan}, "confidence is 0 to 1 (here nan)"),
    "above": ({"confidence": 1.5}, "confidence is 0 to 1 (here 1.5)"),
    "below": ({"confidence": -0.1}, "confidence is 0 to 1"),
    "numpy nan": ({"confidence": np.float32("nan")}, "confidence is 0 to 1"),
    "no number": ({"confidence": "high"}, "could not convert"),
    "no confidence": ({"confidence": None}, "float()"),
    "NUL in a label": ({"labels": ("a\0",)}, "NUL"),
    "surrogate": ({"labels": ("\ud800",)}, "surrogates"),
    "label of another type": ({"labels": (np.int64(3),)}, "a label is int64, not str"),
    "no labels": ({"labels": None}, "cannot be used"),
    "NUL in metadata": ({"metadata": {"a\0": 1}}, "NUL"),
    "no mapping": ({"metadata": None}, "cannot be used"),
    "deep": ({"metadata": {"deep": nested(40)}}, "nested too deeply"),
    "very deep": ({"metadata": {"deep": nested(50_000)}}, "cannot be used"),
    "huge": ({"metadata": {"huge": "x" * (MAX_ANSWER_BYTES // 10)}}, "bytes, over 65536"),
    "array in metadata": ({"metadata": {"score": np.float32(0.5)}}, "numpy.float32"),
    "mask": ({"mask_png": None}, "mask_png is NoneType, not bytes"),
    "mask as array": ({"mask_png": bytearray(b"mask")}, "mask_png is bytearray, not bytes"),
}


@pytest.mark.parametrize("whim", UNBELIEVABLE)
async def test_what_no_gateway_believes_is_one_images_failure(
    whim: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Or it would take the server for broken, for everybody; the log tells the model's author."""
    fields, reason = UNBELIEVABLE[whim]
    model = loadable(WhimsicalModel({whim: lambda: fields}))
    async with asyncio.timeout(TIMEOUT_S):
        await model.load()
        failed, well = await model.run([(IMAGE, [whim]), (IMAGE, ["a cat"])])
    assert isinstance(failed, EdgeError)
    assert (failed.code, failed.retryable) == (Code.INFERENCE_FAILED, False)
    assert well == [answer_with()]
    assert reason in caplog.text


@pytest.mark.parametrize(
    "fields",
    [
        {"model_version": "v" * 201},
        {"model_name": None},
        {"parameters": -1},
        {"parameters": np.int64(7)},
        {"weights_size_gb": math.nan},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_a_model_of_which_no_gateway_believes_what_it_is_is_not_loaded(
    fields: dict[str, Any],
) -> None:
    """Its version is in every answer, so that all of them would be refused."""

    class Odd(WhimsicalModel):
        def info(self) -> ModelInfo:
            return evolve(super().info(), **fields)

    model = loadable(Odd({}))
    with pytest.raises(PredictorUnavailable, match="info\\(\\) says cannot be used"):
        await model.load()
    assert not model.is_loaded


async def test_an_answer_that_is_none_costs_no_second_run() -> None:
    """It is known whose it is; the others of the batch have their answers already."""
    runs: list[str] = []
    model = loadable(
        WhimsicalModel(
            {"nan": lambda: {"confidence": math.nan}, "a cat": lambda: runs.append("a cat")}
        )
    )
    await model.load()
    failed, well = await model.run([(IMAGE, ["nan"]), (IMAGE, ["a cat"])])
    assert isinstance(failed, EdgeError)
    assert well == [answer_with()]
    assert runs == ["a cat"]


async def test_arrays_own_numbers_and_texts_are_taken_for_what_they_are() -> None:
    """A model's author meets them at every turn; they leave as plain values."""
    fields = {"confidence": np.float32(0.5), "labels": [np.str_("a cat")]}
    model = loadable(WhimsicalModel({"numpy": lambda: fields}))
    await model.load()
    [[answer]] = await model.run([(IMAGE, ["numpy"])])  # type: ignore[misc]
    assert answer == answer_with()
    assert (type(answer.confidence), type(answer.labels[0])) == (float, str)


async def test_a_gpu_that_does_not_say_how_full_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and is no reason for another answer."""
    model = loadable(WhimsicalModel({"memory": raising(RuntimeError("driver"))}))
    await model.load()
    assert [await model.memory() for _ in range(3)] == [None, None, None]
    assert caplog.text.count("the GPU does not say how full it is") == 1


async def test_a_gpu_that_is_late_is_not_asked_again_meanwhile() -> None:
    """Or each look at ``/health`` would leave a call behind; once it has answered, it is."""
    asked, may_answer = threading.Semaphore(0), threading.Event()

    def page() -> None:
        asked.release()
        assert may_answer.wait(TIMEOUT_S)

    model = loadable(WhimsicalModel({"memory": page}))
    await model.load()
    assert [await model.memory() for _ in range(3)] == [None, None, None]
    may_answer.set()
    async with asyncio.timeout(TIMEOUT_S):
        while await model.memory() is None:
            await asyncio.sleep(0.01)
    assert [asked.acquire(blocking=False) for _ in range(3)] == [True, True, False]
