"""What a GPU server is asked, and what its answers mean."""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

import pytest

from s3edge.errors import Code, EdgeError
from s3edge.testing.standins.scripted_server import Reply, ScriptedServer, raw, reply
from s3edge.values import (
    BatchPrediction,
    BatchPredictRequest,
    ModelInfo,
    Prediction,
    PredictRequest,
)
from s3edge_inference.http_backend import HttpBackend
from s3edge_inference.inference_api import MAX_ANSWER_BYTES


pytestmark = pytest.mark.anyio

Refusal = Callable[[HttpBackend], Awaitable[EdgeError]]
Logged = Callable[[], list[tuple[int, str]]]

KEY = "the-secret-key"

PREDICT = "/api/v1/predict"
BATCH = "/api/v1/predict/batch"
INFO = "/api/v1/model/info"

TASK = UUID("11111111-1111-4111-8111-111111111111")
ANOTHER_TASK = "33333333-3333-4333-8333-333333333333"
USER = UUID("22222222-2222-4222-8222-222222222222")
IMAGE_URL = "http://images.test/a?X-Amz-Signature=hunter2"

ONE = PredictRequest(TASK, USER, IMAGE_URL, "the red car")
TWO = BatchPredictRequest(TASK, USER, IMAGE_URL, ["a", "b"])


def prediction(**changes: Any) -> dict[str, Any]:
    """Return an answer to one prompt."""
    answer = {
        "task_id": str(TASK),
        "mask_url": "https://masks.test/m?sig=1",
        "labels": ["car"],
        "inference_time_ms": 12.5,
        "confidence": 0.75,
    }
    return answer | changes


def model(**changes: Any) -> dict[str, Any]:
    """Return what is said of a model."""
    answer = {
        "model_name": "sam3",
        "model_version": "3.0",
        "parameters": 848_000_000,
        "weights_size_gb": 3.4,
        "device": "cuda:0",
        "dtype": "bfloat16",
    }
    return answer | changes


def batch(**changes: Any) -> dict[str, Any]:
    """Return an answer to two prompts."""
    results = [prediction(labels=["a"]), prediction(labels=["b"])]
    answer = {"task_id": str(TASK), "results": results, "total_inference_time_ms": 20}
    return answer | changes


async def test_a_prediction_is_asked_for_as_the_contract_has_it(
    backend: HttpBackend, server: ScriptedServer
) -> None:
    """Key, type and body; the answer is what the server said."""
    assert await backend.predict(ONE) == Prediction(
        TASK, "https://masks.test/m?sig=1", ["car"], 12.5, 0.75, None
    )
    [received] = server.received
    assert (received.method, received.path) == ("POST", PREDICT)
    assert received.headers["x-api-key"] == KEY
    assert received.headers["content-type"] == "application/json"
    # Nothing here unpacks a compressed answer.
    assert received.headers["accept-encoding"] == "identity"
    assert json.loads(received.body) == {
        "image_url": IMAGE_URL,
        "text_prompt": "the red car",
        "user_id": str(USER),
        "task_id": str(TASK),
    }


async def test_what_else_a_model_says_passes_through(
    backend: HttpBackend, server: ScriptedServer
) -> None:
    """Boxes and scores of instances, say, are beyond the contract; they are taken when they are there."""
    instances = {"instances": [{"box": [1.5, 0, 20, 9], "score": 0.9}]}
    server.replies[PREDICT] = reply(prediction(metadata=instances))
    assert (await backend.predict(ONE)).metadata == instances


async def test_a_batch_is_asked_for_as_the_contract_has_it(
    backend: HttpBackend, server: ScriptedServer
) -> None:
    """One result for each prompt, in their order."""
    server.replies[BATCH] = reply(batch())
    answer = await backend.predict_batch(TWO)
    assert isinstance(answer, BatchPrediction)
    assert (answer.task_id, answer.total_inference_time_ms) == (TASK, 20)
    assert [result.labels for result in answer.results] == [["a"], ["b"]]
    [received] = server.received
    assert (received.path, received.headers["x-api-key"]) == (BATCH, KEY)
    assert json.loads(received.body) == {
        "image_url": IMAGE_URL,
        "prompts": ["a", "b"],
        "user_id": str(USER),
        "task_id": str(TASK),
    }


async def test_the_model_is_what_the_server_says(
    backend: HttpBackend, server: ScriptedServer
) -> None:
    """Asked with the key."""
    assert await backend.model_info() == ModelInfo(
        "sam3", "3.0", 848_000_000, 3.4, "cuda:0", "bfloat16"
    )
    assert server.received[0].headers["x-api-key"] == KEY


async def test_health_is_asked_without_the_key(
    backend: HttpBackend, server: ScriptedServer
) -> None:
    """It needs none."""
    await backend.check()
    [received] = server.received
    assert (received.method, received.path) == ("GET", "/health")
    assert "x-api-key" not in received.headers


async def test_a_base_path_is_kept(server: ScriptedServer) -> None:
    """A server may be behind a proxy that serves others, too."""
    server.replies["/gpu/api/v1/predict"] = server.replies[PREDICT]
    async with HttpBackend([f"{server.url}/gpu"], KEY) as backend:
        assert (await backend.predict(ONE)).task_id == TASK


async def test_what_a_server_says_beyond_the_contract_is_no_fault(
    backend: HttpBackend, server: ScriptedServer
) -> None:
    """A newer server may say more; its model's version is kept."""
    server.replies[PREDICT] = reply(prediction(model_version="3.1", further={"a": 1}))
    assert (await backend.predict(ONE)).model_version == "3.1"


@pytest.mark.parametrize(
    ("answer", "code", "retryable", "retry_after_s"),
    [
        (reply({}, 429), Code.SERVICE_UNAVAILABLE, True, None),
        (reply({}, 429, Retry_After="7"), Code.SERVICE_UNAVAILABLE, True, 7),
        (reply(b"", 502), Code.SERVICE_UNAVAILABLE, True, None),
        (reply(b"<html>", 503), Code.SERVICE_UNAVAILABLE, True, None),
        (reply({}, 503, Retry_After="0"), Code.SERVICE_UNAVAILABLE, True, 0),
        (reply({}, 503, Retry_After="99999999"), Code.SERVICE_UNAVAILABLE, True, None),
        (reply({}, 503, Retry_After="9999"), Code.SERVICE_UNAVAILABLE, True, 3600),
        (reply({}, 503, Retry_After="1.5"), Code.SERVICE_UNAVAILABLE, True, None),
        (
            reply({}, 503, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"),
            Code.SERVICE_UNAVAILABLE,
            True,
            None,
        ),
        (reply({"error": "MODEL_NOT_LOADED"}, 503), Code.MODEL_NOT_LOADED, True, None),
        (reply({"detail": "Model not loaded"}, 503), Code.MODEL_NOT_LOADED, True, None),
        (reply(b"the model is not yet loaded", 503), Code.MODEL_NOT_LOADED, True, None),
        (reply({}, 504), Code.SERVICE_UNAVAILABLE, True, None),
        (reply({}, 400), Code.INVALID_REQUEST, False, None),
        (reply({}, 401), Code.INFERENCE_FAILED, False, None),
        (reply({}, 403), Code.INFERENCE_FAILED, False, None),
        (reply({}, 404), Code.INFERENCE_FAILED, False, None),
        (reply({}, 422), Code.INFERENCE_FAILED, False, None),
        (reply({}, 500), Code.INFERENCE_FAILED, False, None),
        (reply({"error": "MODEL_NOT_LOADED"}, 500), Code.INFERENCE_FAILED, False, None),
        (reply(b"", 302, Location="http://evil.test/"), Code.INFERENCE_FAILED, False, None),
        (reply(b"", 204), Code.INFERENCE_FAILED, False, None),
        (raw(b""), Code.SERVICE_UNAVAILABLE, True, 1),
        (raw(b"\x00\xffnot HTTP"), Code.SERVICE_UNAVAILABLE, True, 1),
        (
            raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            Code.SERVICE_UNAVAILABLE,
            True,
            1,
        ),
    ],
)
async def test_each_status_means_one_thing(
    backend: HttpBackend,
    server: ScriptedServer,
    answer: Reply,
    code: Code,
    retryable: bool,
    retry_after_s: int | None,
    refusal: Refusal,
) -> None:
    """Passing faults are tried again by whoever asked, the others end the task."""
    server.replies[PREDICT] = answer
    error = await refusal(backend)
    assert (error.code, error.retryable, error.retry_after_s) == (code, retryable, retry_after_s)
    assert server.count(PREDICT) == 1


async def test_a_server_that_is_away_is_a_passing_fault(refusal: Refusal) -> None:
    """Nobody listens."""
    server = ScriptedServer({})
    async with server.serving():
        pass
    async with HttpBackend([server.url], KEY) as backend:
        error = await refusal(backend)
    assert (error.code, error.retryable) == (Code.SERVICE_UNAVAILABLE, True)


FIXED = "The GPU server cannot use this image or prompt."


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "The image is too dark."}, "The image is too dark."),
        ({"detail": " No such object. "}, "No such object."),
        ({"message": "Das Bild ist zu groß."}, "Das Bild ist zu groß."),
        (
            {"error": "INVALID_IMAGE", "message": "The image is cut short."},
            "The image is cut short.",
        ),
        ({"error": {"code": "BAD", "message": "It is no image."}}, "It is no image."),
        ({"error": "INVALID_IMAGE"}, "INVALID_IMAGE"),
        ({"error": "x " * 99 + "xx"}, "x " * 99 + "xx"),
        ({"error": "x " * 100 + "x"}, FIXED),
        ({"error": "bad X-Amz-Signature=hunter2"}, FIXED),
        ({"error": "bad header eyJhbGciOiJIUzI1NiJ9.eyJ9.abc"}, FIXED),
        ({"error": "bad key stand-in-api-secret-key"}, FIXED),
        ({"error": "cannot fetch http://10.0.0.5/a?X-Amz-Signature=hunter2"}, FIXED),
        ({"error": "cannot fetch //images.test/a"}, FIXED),
        ({"error": "cannot fetch /a?X-Amz-Signature=hunter2"}, FIXED),
        ({"error": "no route to 10.0.0.5"}, FIXED),
        ({"error": "see www.example.com"}, FIXED),
        ({"error": "<b>bold</b>"}, FIXED),
        ({"error": "two\nlines"}, FIXED),
        ({"error": "\x1b[31mred"}, FIXED),
        ({"error": ""}, FIXED),
        ({"error": 5}, FIXED),
        ({"detail": [{"loc": ["body"], "msg": "field required"}]}, FIXED),
        ({}, FIXED),
        ([], FIXED),
        (b"The image is too dark.", FIXED),
        (b"\xff", FIXED),
        (b"", FIXED),
        (b"[" * 10_000, FIXED),
    ],
)
async def test_what_is_wrong_with_an_image_is_passed_on(
    backend: HttpBackend, server: ScriptedServer, body: Any, message: str, refusal: Refusal
) -> None:
    """As far as users may read it: a short sentence, without addresses."""
    server.replies[PREDICT] = reply(body, 400)
    assert (await refusal(backend)).message == message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!doctype html><title>Welcome to nginx!</title>",
        b"null",
        b"[]",
        b"{}",
        b'{"task_id":"1',
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps(prediction()).replace("0.75", "NaN").encode(),
        json.dumps(prediction()).replace("0.75", "1e999").encode(),
        prediction(task_id=ANOTHER_TASK),
        prediction(task_id="the first"),
        prediction(confidence=1.01),
        prediction(confidence=-0.01),
        prediction(confidence="high"),
        prediction(confidence=None),
        prediction(inference_time_ms=-1),
        prediction(labels="car"),
        prediction(labels=None),
        prediction(labels=["a\0b"]),
        prediction(labels=[{"a\0b": 1}]),
        prediction(labels=[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]),
        prediction(metadata=["a"]),
        prediction(metadata={"a\0b": 1}),
        prediction(metadata={"a": "a\0b"}),
        prediction(mask_url=""),
        prediction(mask_url="file:///etc/passwd"),
        prediction(mask_url="javascript:alert(1)"),
        prediction(mask_url="masks/a/b"),
        prediction(mask_url="http://"),
        prediction(mask_url="http://[/"),
        prediction(mask_url="http://user:pass@masks.test/m"),
        prediction(mask_url="http://masks.test/a b"),
        prediction(mask_url="http://masks.test/" + "x" * 5000),
        prediction(model_version="x" * 201),
        prediction(labels=["x" * MAX_ANSWER_BYTES]),
        {"success": True, "data": prediction()},
    ],
    ids=lambda body: str(body)[:40],
)
async def test_what_is_not_the_contracts_message_is_no_answer(
    backend: HttpBackend, server: ScriptedServer, logged: Logged, body: Any, refusal: Refusal
) -> None:
    """A status of 200 proves nothing; it is tried again, and the operator reads of it once."""
    server.replies[PREDICT] = reply(body)
    error = await refusal(backend)
    assert (error.code, error.retryable) == (Code.SERVICE_UNAVAILABLE, True)
    [(level, line)] = logged()
    assert level == logging.WARNING
    assert "not the inference API's" in line


@pytest.mark.parametrize(
    "change",
    [
        {"task_id": ANOTHER_TASK},
        {"results": [prediction()]},
        {"results": [prediction(), prediction(task_id=ANOTHER_TASK)]},
        {"results": [prediction(), prediction(confidence=2)]},
        {"results": None},
        {"total_inference_time_ms": -1},
    ],
    ids=str,
)
async def test_a_batch_that_does_not_fit_is_no_answer(
    backend: HttpBackend, server: ScriptedServer, change: Mapping[str, Any]
) -> None:
    """Each prompt has its result, of this task."""
    server.replies[BATCH] = reply(batch(**change))
    with pytest.raises(EdgeError) as caught:
        await backend.predict_batch(TWO)
    assert (caught.value.code, caught.value.retryable) == (Code.SERVICE_UNAVAILABLE, True)


@pytest.mark.parametrize(
    ("answer", "code", "retryable"),
    [
        (reply({"error": "MODEL_NOT_LOADED"}, 503), Code.MODEL_NOT_LOADED, True),
        (reply({}, 401), Code.INFERENCE_FAILED, False),
        (reply(model(parameters=-1)), Code.SERVICE_UNAVAILABLE, True),
        (reply(model(device=None)), Code.SERVICE_UNAVAILABLE, True),
        (raw(b""), Code.SERVICE_UNAVAILABLE, True),
    ],
)
async def test_a_model_that_is_not_told(
    backend: HttpBackend, server: ScriptedServer, answer: Reply, code: Code, retryable: bool
) -> None:
    """The same table decides."""
    server.replies[INFO] = answer
    with pytest.raises(EdgeError) as caught:
        await backend.model_info()
    assert (caught.value.code, caught.value.retryable) == (code, retryable)


async def test_any_server_can_tell_of_the_model(both: HttpBackend, server: ScriptedServer) -> None:
    """The first one is away."""
    server.replies[INFO] = raw(b"")
    assert (await both.model_info()).model_name == "sam3"


@pytest.mark.parametrize(
    ("answer", "level", "advice"),
    [
        (reply({}, 401), logging.ERROR, "compare API_SECRET_KEY on both sides"),
        (reply({}, 403), logging.ERROR, "compare API_SECRET_KEY on both sides"),
        (reply({}, 404), logging.ERROR, "status 404"),
        (reply({}, 500), logging.ERROR, "status 500"),
        (reply({}, 502), logging.WARNING, "status 502"),
        (raw(b""), logging.WARNING, "gave no answer"),
    ],
)
async def test_the_operator_is_told_which_server_needs_what(
    backend: HttpBackend,
    server: ScriptedServer,
    logged: Logged,
    answer: Reply,
    level: int,
    advice: str,
    refusal: Refusal,
) -> None:
    """One line, with the server's number and address, and no secret."""
    server.replies[PREDICT] = answer
    await refusal(backend)
    [(said, line)] = logged()
    assert said == level
    assert line.startswith(f"GPU server 1 ({server.url.removeprefix('http://')}) ")
    assert advice in line
