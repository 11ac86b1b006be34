"""The inference server on a real socket, with a model that does what a test says."""

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import UUID, uuid4

import anyio
import attrs
import httpx
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from s3edge.cli.server import bind, running_in_thread, url_of
from s3edge.errors import unavailable
from s3edge.gateway import SystemClock
from s3edge.memory.database import MemoryDatabase
from s3edge.memory.storage import MemoryObjectStorage
from s3edge.rules.keys import upload_key
from s3edge.values import ModelInfo
from s3edge_inference.predictors import (
    GpuMemory,
    Predictor,
    PredictorUnavailable,
    Segmentation,
    UnreadableImage,
)
from s3edge_inference.server.app import InferenceServer
from s3edge_inference.server.engine import Engine
from s3edge_inference.server.messages import Wanted
from s3edge_inference.server.options import ServerOptions


KEY = "the-key"

BATCH_SIZE = 4

QUEUE = 20

TIMEOUT_S = 20.0

BREAKS_THE_MODEL = "break the model"

ONE_ANSWER_TOO_MANY = "give one answer too many"

NO_JSON = "say what no JSON can carry"


def png(colour: str) -> bytes:
    """Return a small image."""
    encoded = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(encoded, "PNG")
    return encoded.getvalue()


class ScriptedModel(Predictor):
    """A model that waits until a test lets it go on, and remembers what it was given."""

    model_name = "scripted"
    model_version = "scripted-1"

    def __init__(self) -> None:
        self.may_load = threading.Event()
        self.may_run = threading.Event()
        self.may_load.set()
        self.may_run.set()
        self.is_broken = False
        self.used_mb: Any = 100.0
        self.has_begun = threading.Semaphore(0)
        self.batches: list[Sequence[tuple[bytes, Sequence[str]]]] = []

    def load(self) -> None:
        """Wait until the test lets it."""
        assert self.may_load.wait(TIMEOUT_S)
        if self.is_broken:
            raise PredictorUnavailable("there are no weights")

    def info(self) -> ModelInfo:
        """Say something that is easily recognised."""
        return ModelInfo(
            self.model_name,
            self.model_version,
            7,
            0.5,
            "cuda:0",
            "bfloat16",
        )

    def memory(self) -> GpuMemory:
        """Say something that is easily recognised."""
        return GpuMemory("Scripted GPU", self.used_mb, 400.0)

    def segment(self, image: bytes, prompts: Sequence[str]) -> list[Segmentation]:
        """Pick the prompt's name."""
        if BREAKS_THE_MODEL in prompts:
            raise RuntimeError(BREAKS_THE_MODEL)
        if image == png("black"):
            raise UnreadableImage("The image is damaged or incomplete.")
        metadata = {"boxes": object() if NO_JSON in prompts else [[1, 2, 3, 4]]}
        answers = [Segmentation(prompt.encode(), (prompt,), 0.5, metadata) for prompt in prompts]
        return answers * 2 if ONE_ANSWER_TOO_MANY in prompts else answers

    def segment_batch(
        self, items: Sequence[tuple[bytes, Sequence[str]]]
    ) -> list[list[Segmentation] | UnreadableImage]:
        """Remember the batch, and wait until the test lets it go on."""
        self.batches.append(items)
        self.has_begun.release()
        assert self.may_run.wait(TIMEOUT_S)
        return super().segment_batch(items)


class Unspeakable(PredictorUnavailable):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        """Fail."""
        raise LookupError


class UnspeakableModel(ScriptedModel):
    """A model that cannot be loaded, and has a fault in saying why."""

    def load(self) -> None:
        """Fail."""
        raise Unspeakable


@attrs.define
class Served:
    """A running server, and what a test needs of it."""

    client: httpx.Client
    model: ScriptedModel
    storage: MemoryObjectStorage
    server: InferenceServer
    gave_up: threading.Event
    pool: ThreadPoolExecutor
    user_id: UUID = attrs.field(factory=uuid4)

    def upload(self, image: bytes) -> str:
        """Keep an image of the user's, and return its URL."""
        key = upload_key(self.user_id, uuid4())

        async def put() -> None:
            await self.storage.put(key, chunks(), content_type="image/png")

        async def chunks() -> AsyncIterator[bytes]:
            yield image

        anyio.run(put)
        return self.storage.url_for(key)

    def stored(self) -> Sequence[str]:
        """Return the keys of what is stored."""
        return self.storage.keys()

    def body(self, image_url: str, prompt: str = "a cat") -> dict[str, str]:
        """Return a request for a new task."""
        return {
            "image_url": image_url,
            "text_prompt": prompt,
            "user_id": str(self.user_id),
            "task_id": str(uuid4()),
        }

    def predict(self, body: object, path: str = "predict", key: str = KEY) -> httpx.Response:
        """Ask, and wait."""
        return self.client.post(f"/api/v1/{path}", json=body, headers={"X-API-Key": key})

    def asked(self, body: object) -> "Future[httpx.Response]":
        """Ask in another thread."""
        return self.pool.submit(self.predict, body)

    def held(self, image_url: str) -> "Future[httpx.Response]":
        """Have the model begin a batch that does not end."""
        self.model.may_run.clear()
        first = self.asked(self.body(image_url))
        assert self.model.has_begun.acquire(timeout=TIMEOUT_S)
        return first

    def until(self, name: str, value: float, **labels: str) -> None:
        """Wait until a metric has a value."""
        for _ in range(int(TIMEOUT_S * 100)):
            if self.metric(name, **labels) == value:
                return
            threading.Event().wait(0.01)
        pytest.fail(f"{name} is {self.metric(name, **labels)}, not {value}")

    def metric(self, name: str, **labels: str) -> float:
        """Return a number of ``/metrics``; 0 for what was never counted."""
        text = self.client.get("/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == f"s3edge_inference_{name}" and sample.labels == labels:
                    return sample.value
        return 0.0


class LockedStorage(MemoryObjectStorage):
    """A storage whose keys are wrong."""

    async def check(self) -> None:
        """Say so."""
        raise unavailable("It refuses the keys.")


class LockedDatabase(MemoryDatabase):
    """A database whose service key is wrong, and only that."""

    async def backlog(self) -> int:
        """Say so."""
        raise unavailable("It refuses the service key.")


class FaultyStorage(MemoryObjectStorage):
    """A storage whose adapter has a fault."""

    def __init__(self, fault: BaseException) -> None:
        super().__init__("http://images.invalid", SystemClock())
        self._fault = fault

    async def check(self) -> None:
        """Raise it."""
        raise self._fault


@contextmanager
def serving(
    model: ScriptedModel,
    storage: MemoryObjectStorage | None = None,
    batch_timeout_s: float = 600,
    database: MemoryDatabase | None = None,
) -> Iterator[Served]:
    """Run a server on a free port."""
    storage = storage or MemoryObjectStorage("http://images.invalid", SystemClock())
    gave_up = threading.Event()
    options = ServerOptions(
        KEY,
        batch_size=BATCH_SIZE,
        batch_wait_s=0.05,
        batch_timeout_s=batch_timeout_s,
        queue=QUEUE,
        grace_s=2,
    )
    server = InferenceServer(model, storage, database, options, give_up=gave_up.set)
    with ExitStack() as stack:
        listener = stack.enter_context(bind("127.0.0.1", 0))
        stack.enter_context(running_in_thread(server.app(), listener))
        pool = stack.enter_context(ThreadPoolExecutor(2 * QUEUE))
        client = stack.enter_context(httpx.Client(base_url=url_of(listener), timeout=TIMEOUT_S))
        stack.callback(model.may_run.set)
        stack.callback(model.may_load.set)
        yield Served(client, model, storage, server, gave_up, pool)


@pytest.fixture
def model() -> ScriptedModel:
    """Return a model that does as it is told."""
    return ScriptedModel()


@pytest.fixture
def served(model: ScriptedModel) -> Iterator[Served]:
    """Run a server for one test."""
    with serving(model) as served:
        yield served


@pytest.fixture(scope="module")
def idle() -> Iterator[Served]:
    """Run a server for all tests whose requests never reach the model."""
    with serving(ScriptedModel()) as served:
        served.until("model_loaded", 1)
        yield served


@pytest.fixture
def loaded(served: Served) -> Served:
    """Return the server with its model loaded."""
    served.until("model_loaded", 1)
    return served


def test_one_prompt_is_answered(loaded: Served) -> None:
    """The mask is stored under the task's key, and what the model says beside it is passed on."""
    body = loaded.body(loaded.upload(png("white")))
    answer = loaded.predict(body).json()
    key = f"masks/{loaded.user_id}/{body['task_id']}"
    assert loaded.storage.key_of(answer["mask_url"]) == key
    assert key in loaded.stored()
    assert (answer["task_id"], answer["labels"]) == (body["task_id"], ["a cat"])
    assert answer["metadata"] == {"boxes": [[1, 2, 3, 4]]}
    assert (answer["confidence"], answer["model_version"]) == (0.5, "scripted-1")
    assert answer["inference_time_ms"] >= 0


def test_ten_prompts_are_one_image(loaded: Served) -> None:
    """It is read once and goes through the model once; each prompt has a mask."""
    prompts = [f"cat {number}" for number in range(10)]
    body = {**loaded.body(loaded.upload(png("white"))), "prompts": prompts}
    answer = loaded.predict(body, "predict/batch").json()
    assert [result["labels"] for result in answer["results"]] == [[prompt] for prompt in prompts]
    assert [[len(asked) for _, asked in batch] for batch in loaded.model.batches] == [[10]]
    assert loaded.metric("stage_seconds_count", stage="download") == 1
    assert sum(key.startswith("masks/") for key in loaded.stored()) == 10


@pytest.mark.parametrize("count", [0, 11])
def test_other_numbers_of_prompts_are_refused(idle: Served, count: int) -> None:
    """One to ten."""
    body = {**idle.body(idle.upload(png("white"))), "prompts": ["cat"] * count}
    answer = idle.predict(body, "predict/batch")
    assert (answer.status_code, answer.json()["message"]) == (400, "Send 1 to 10 prompts.")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 5000,
        b"{}",
        b'{"image_url": 1, "text_prompt": "a", "user_id": "a", "task_id": "b"}',
        b"x" * 70_000,
    ],
)
def test_what_is_no_request_is_refused(idle: Served, body: bytes) -> None:
    """With 400: the gateway would ask again after anything else."""
    answer = idle.client.post("/api/v1/predict", content=body, headers={"X-API-Key": KEY})
    assert (answer.status_code, answer.json()["error"]) == (400, "INVALID_REQUEST")


def test_a_prompt_is_held_to_the_rule(idle: Served) -> None:
    """The same rule as at the gateway."""
    assert idle.predict(idle.body(idle.upload(png("white")), " \n")).status_code == 400
    assert idle.model.batches == []


@pytest.mark.parametrize("key", ["", "the-ke", "the-key2", "thé-key"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/predict"),
        ("POST", "/api/v1/predict/batch"),
        ("GET", "/api/v1/model/info"),
        ("GET", "/metrics"),
    ],
)
def test_a_wrong_key_is_refused(idle: Served, key: str, method: str, path: str) -> None:
    """Before anything else is looked at; ``/health`` needs none."""
    headers = [(b"X-API-Key", key.encode())] if key else []
    answer = idle.client.request(method, path, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (401, "UNAUTHORIZED")
    assert idle.client.get("/health").status_code == 200


def test_nothing_is_predicted_before_the_model_is_loaded(
    model: ScriptedModel,
    request: pytest.FixtureRequest,
) -> None:
    """503 ``MODEL_NOT_LOADED`` meanwhile, with a time to come back; then everything works."""
    model.may_load.clear()
    served: Served = request.getfixturevalue("served")
    body = served.body(served.upload(png("white")))
    answer = served.predict(body)
    assert (answer.status_code, answer.json()["error"]) == (503, "MODEL_NOT_LOADED")
    assert int(answer.headers["Retry-After"]) > 0
    info_url, key = "/api/v1/model/info", {"X-API-Key": KEY}
    assert served.client.get(info_url, headers=key).json()["error"] == "MODEL_NOT_LOADED"
    health = served.client.get("/health").json()
    assert (health["status"], health["model_loaded"], health["gpu_name"]) == ("ok", False, None)

    model.may_load.set()
    served.until("model_loaded", 1)
    assert served.predict(body).status_code == 200
    assert served.client.get("/health").json() == {
        "status": "ok",
        "model_loaded": True,
        "gpu_available": True,
        "gpu_name": "Scripted GPU",
        "vram_used_mb": 100.0,
        "vram_total_mb": 400.0,
    }
    assert served.client.get(info_url, headers=key).json() == {
        "model_name": "scripted",
        "model_version": "scripted-1",
        "parameters": 7,
        "weights_size_gb": 0.5,
        "device": "cuda:0",
        "dtype": "bfloat16",
    }


def test_a_model_that_cannot_be_loaded_ends_the_server(
    model: ScriptedModel, request: pytest.FixtureRequest
) -> None:
    """It gives up, and says why."""
    model.is_broken = True
    served: Served = request.getfixturevalue("served")
    assert served.gave_up.wait(TIMEOUT_S)
    assert served.server.failure == "there are no weights"


def test_a_storage_that_is_of_no_use_is_said_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Or wrong keys would be found by the first user."""
    with serving(ScriptedModel(), LockedStorage("http://images.invalid", SystemClock())) as served:
        served.until("model_loaded", 1)
    assert "the storage cannot be used now: It refuses the keys." in caplog.messages


def test_an_adapters_fault_at_the_start_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With its trace, and with no other consequence: what is checked next is checked."""
    storage = FaultyStorage(RuntimeError("no such attribute"))
    with serving(ScriptedModel(), storage, database=LockedDatabase(SystemClock())) as served:
        served.until("model_loaded", 1)
        body = served.body(served.upload(png("white")))
        assert served.predict(body).status_code == 200
        assert not served.gave_up.is_set()
    assert "RuntimeError: no such attribute" in caplog.text
    assert "the database cannot be used now: It refuses the service key." in caplog.messages


@pytest.mark.parametrize(
    ("model", "storage"),
    [
        (ScriptedModel(), FaultyStorage(asyncio.CancelledError())),
        (UnspeakableModel(), None),
    ],
    ids=["a cancellation that nobody asked for", "an error in an error"],
)
def test_a_server_that_can_run_nothing_any_more_ends(
    model: ScriptedModel, storage: MemoryObjectStorage | None
) -> None:
    """What is unforeseen ends all that runs; the process must not stay without it."""
    with serving(model, storage) as served:
        assert served.gave_up.wait(TIMEOUT_S)
        assert "see the log" in (served.server.failure or "")
        refused = served.predict(served.body(served.upload(png("white"))))
        assert (refused.status_code, refused.json()["error"]) == (503, "SERVICE_UNAVAILABLE")


@pytest.mark.anyio
async def test_a_task_that_could_not_begin_is_not_under_way() -> None:
    """Whoever asks again is refused again, and does not wait for it."""
    storage = MemoryObjectStorage("http://images.invalid", SystemClock())
    engine = Engine(ScriptedModel(), storage, None, ServerOptions(KEY))
    await engine.load()
    async with anyio.create_task_group() as ended:
        pass
    wanted = Wanted(uuid4(), uuid4(), "http://images.invalid/x", ("a cat",))
    with anyio.fail_after(TIMEOUT_S):
        for _ in range(2):
            with pytest.raises(RuntimeError, match="not active"):
                await engine.tasks.answer(wanted, ended)
    assert engine.tasks.under_way == 0


def test_a_model_that_hangs_ends_the_server(model: ScriptedModel) -> None:
    """Whoever waits is sent elsewhere, nothing new is taken, ``/health`` says it, and it gives up."""
    with serving(model, batch_timeout_s=1) as served:
        served.until("model_loaded", 1)
        image_url = served.upload(png("white"))
        asked = [served.held(image_url), served.asked(served.body(image_url))]
        assert served.gave_up.wait(TIMEOUT_S)
        assert "has not ended a batch in 1 s" in (served.server.failure or "")
        asked.append(served.asked(served.body(image_url)))
        for answer in asked:
            assert answer.result().status_code == 503
            assert answer.result().json()["message"].startswith("The model does not answer")
        health = served.client.get("/health").json()
        assert (health["status"], health["model_loaded"]) == ("hanging", True)


def test_an_unforeseen_error_is_answered_in_the_apis_words(
    model: ScriptedModel, caplog: pytest.LogCaptureFixture
) -> None:
    """Here a model's author has said what no JSON can carry; the log has the trace."""
    with serving(model) as served:
        served.until("model_loaded", 1)
        model.used_mb = object()
        answer = served.client.get("/health")
        assert (answer.status_code, answer.json()["error"]) == (500, "INFERENCE_FAILED")
    assert "Traceback" in caplog.text


def test_a_service_key_that_is_wrong_is_said_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    """The database's own check needs none."""
    with serving(ScriptedModel(), database=LockedDatabase(SystemClock())) as served:
        served.until("model_loaded", 1)
    assert "the database cannot be used now: It refuses the service key." in caplog.messages


def test_an_upload_at_another_address_names_the_setting(
    idle: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """When gateway and server disagree on it, each upload is refused as somebody else's image."""
    user_id = idle.user_id
    for folder, is_said in ((uuid4(), False), (user_id, True)):
        caplog.clear()
        answer = idle.predict(idle.body(f"http://cdn.invalid/b/uploads/{folder}/{uuid4()}"))
        assert answer.status_code == 400
        assert ("R2_PUBLIC_BASE_URL" in caplog.text) is is_said


def test_concurrent_requests_go_through_the_model_together(loaded: Served) -> None:
    """While one batch runs the next one fills, up to its size."""
    image_url = loaded.upload(png("white"))
    asked = [loaded.held(image_url)]
    asked += [loaded.asked(loaded.body(image_url)) for _ in range(2 * BATCH_SIZE + 1)]
    loaded.until("queue_depth", 2 * BATCH_SIZE + 1)
    loaded.model.may_run.set()
    assert {answer.result().status_code for answer in asked} == {200}
    assert [len(batch) for batch in loaded.model.batches] == [1, BATCH_SIZE, BATCH_SIZE, 1]
    assert loaded.metric("batch_size_count") == 4
    assert loaded.metric("batch_size_sum") == len(asked)
    assert loaded.metric("answers_total", code="OK") == len(asked)
    for stage, count in {
        "download": 10,
        "check": 10,
        "wait": 10,
        "predict": 4,
        "upload": 10,
    }.items():
        assert loaded.metric("stage_seconds_count", stage=stage) == count
    assert (loaded.metric("tasks"), loaded.metric("queue_depth")) == (0, 0)
    assert loaded.metric("gpu_memory_used_bytes") == 100 * 1024 * 1024


def test_the_queue_is_bounded(loaded: Served) -> None:
    """One more than there is room for is told when to come back, and is then served."""
    image_url = loaded.upload(png("white"))
    asked = [loaded.held(image_url)]
    asked += [loaded.asked(loaded.body(image_url)) for _ in range(QUEUE - 1)]
    loaded.until("tasks", QUEUE)
    body = loaded.body(image_url)
    refused = loaded.predict(body)
    assert (refused.status_code, refused.json()["error"]) == (503, "SERVICE_UNAVAILABLE")
    assert int(refused.headers["Retry-After"]) >= 1
    loaded.model.may_run.set()
    assert {answer.result().status_code for answer in asked} == {200}
    assert loaded.predict(body).status_code == 200
    assert max(len(batch) for batch in loaded.model.batches) == BATCH_SIZE


def test_a_task_runs_once_however_often_it_is_asked(loaded: Served) -> None:
    """At once, and later; also when its URL was signed anew. Another request under its id is refused."""
    image_url = loaded.upload(png("white"))
    loaded.model.may_run.clear()
    body = loaded.body(image_url)
    asked = [loaded.asked(body) for _ in range(8)]
    assert loaded.model.has_begun.acquire(timeout=TIMEOUT_S)
    loaded.model.may_run.set()
    answers = {answer.result().content for answer in asked}
    answers.add(loaded.predict({**body, "image_url": f"{image_url}&signed=anew"}).content)
    assert len(answers) == 1
    assert len(loaded.model.batches) == 1
    for other in (
        {"text_prompt": "a dog"},
        {"image_url": loaded.upload(png("red"))},
        {"user_id": str(uuid4())},
    ):
        answer = loaded.predict({**body, **other})
        assert answer.status_code == 400
        assert answer.json()["message"].startswith("This task was asked before")


def test_one_bad_image_fails_for_itself_alone(loaded: Served) -> None:
    """One that cannot be read is refused, one that breaks the model is an error; others are served."""
    image_url = loaded.upload(png("white"))
    first = loaded.held(image_url)
    bodies = [
        loaded.body(image_url),
        loaded.body(loaded.upload(png("black"))),
        loaded.body(image_url, BREAKS_THE_MODEL),
        loaded.body(image_url),
        loaded.body(image_url, ONE_ANSWER_TOO_MANY),
        loaded.body(image_url, NO_JSON),
    ]
    asked = [loaded.asked(body) for body in bodies]
    loaded.until("queue_depth", len(asked))
    loaded.model.may_run.set()
    assert first.result().status_code == 200
    answers = [answer.result() for answer in asked]
    assert [answer.status_code for answer in answers] == [200, 400, 500, 200, 500, 500]
    assert answers[1].json()["message"] == "The image is damaged or incomplete."
    assert answers[2].json() == {
        "error": "INFERENCE_FAILED",
        "message": "The model could not be run.",
    }
    assert loaded.metric("answers_total", code="INVALID_REQUEST") == 1
    assert loaded.metric("answers_total", code="INFERENCE_FAILED") == 3


def test_a_stop_answers_what_has_begun_and_takes_nothing_new(loaded: Served) -> None:
    """New tasks go to another server, also over a connection that is open; ``/health`` says it."""
    image_url = loaded.upload(png("white"))
    body = loaded.body(image_url)
    loaded.model.may_run.clear()
    first = loaded.asked(body)
    assert loaded.model.has_begun.acquire(timeout=TIMEOUT_S)
    loaded.server.stop_taking()
    refused = loaded.predict(loaded.body(image_url))
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert refused.json()["message"] == "The inference server is stopping; try another one."
    assert loaded.client.get("/health").json()["status"] == "stopping"
    repeat = loaded.asked(body)
    loaded.model.may_run.set()
    assert first.result().content == repeat.result().content
    assert len(loaded.model.batches) == 1
