"""What the engine of the inference server writes down, and what a bad database costs it."""

import io
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import anyio
import pytest
from PIL import Image

from s3edge.errors import Code, EdgeError
from s3edge.gateway import SystemClock
from s3edge.memory.database import MemoryDatabase
from s3edge.memory.storage import MemoryObjectStorage
from s3edge.rules.keys import upload_key
from s3edge.values import ModelInfo, Outcome, StoredObject
from s3edge_inference.predictors import Predictor, Segmentation
from s3edge_inference.server.engine import Engine
from s3edge_inference.server.messages import Answer, Wanted
from s3edge_inference.server.metrics import Metrics
from s3edge_inference.server.options import ServerOptions
from s3edge_inference.server.records import Records


pytestmark = pytest.mark.anyio

TIMEOUT_S = 20.0

UNFORESEEN = "the adapter has a fault"


class PlainModel(Predictor):
    """A model that picks anything."""

    model_name = "plain"
    model_version = "1"

    def load(self) -> None:
        """Do nothing."""

    def info(self) -> ModelInfo:
        """Say which it is."""
        return ModelInfo("plain", "1", 0, 0.0, "cuda:0", "none")

    def segment(self, image: bytes, prompts: Sequence[str]) -> list[Segmentation]:
        """Pick."""
        return [Segmentation(b"mask", (prompt,), 0.5) for prompt in prompts]


class FaultyStorage(MemoryObjectStorage):
    """A storage that takes uploads, and raises on masks what no port knows."""

    async def put(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str,
        size_bytes: int | None = None,
    ) -> StoredObject:
        """Raise, or keep."""
        if key.startswith("masks/"):
            raise RuntimeError(UNFORESEEN)
        return await super().put(key, chunks, content_type=content_type, size_bytes=size_bytes)


class WatchedDatabase(MemoryDatabase):
    """
    A database that remembers its calls and then knows no such task.

    Attributes:
        called: What was written, in order.
        returned: Those of them that have ended.
        hangs_on: A call that never returns; ``None`` for none.
        is_faulty: Whether it raises what no port knows.
    """

    def __init__(self, *, hangs_on: str | None = None, is_faulty: bool = False) -> None:
        super().__init__(SystemClock())
        self.called: list[str] = []
        self.returned: list[str] = []
        self.hangs_on = hangs_on
        self.is_faulty = is_faulty

    async def start_task(self, task_id: UUID, *, attempt: int | None = None) -> bool:
        """Remember."""
        return await self._call("start")

    async def complete_task(
        self,
        task_id: UUID,
        outcome: Outcome,
        *,
        attempt: int | None = None,
    ) -> bool:
        """Remember."""
        return await self._call("complete")

    async def fail_task(
        self,
        task_id: UUID,
        code: Code,
        message: str,
        *,
        attempt: int | None = None,
    ) -> bool:
        """Remember."""
        return await self._call(f"fail {code}")

    async def _call(self, name: str) -> bool:
        self.called.append(name)
        if self.is_faulty:
            raise RuntimeError(UNFORESEEN)
        if self.hangs_on == name:
            await anyio.sleep_forever()
        self.returned.append(name)
        return True


@pytest.fixture(scope="module")
def png() -> bytes:
    """Return a small image."""
    encoded = io.BytesIO()
    Image.new("RGB", (8, 6)).save(encoded, "PNG")
    return encoded.getvalue()


@asynccontextmanager
async def asking(
    image: bytes, storage: MemoryObjectStorage, database: WatchedDatabase
) -> AsyncIterator[Callable[[], Awaitable[Answer]]]:
    """Run an engine that has an image of a user's."""
    user_id = uuid4()
    key = upload_key(user_id, uuid4())

    async def chunks() -> AsyncIterator[bytes]:
        yield image

    await storage.put(key, chunks(), content_type="image/png")
    engine = Engine(PlainModel(), storage, database, ServerOptions("key", batch_wait_s=0))
    await engine.load()
    async with engine.images, anyio.create_task_group() as group:
        group.start_soon(engine.serve)

        async def ask() -> Answer:
            wanted = Wanted(uuid4(), user_id, storage.url_for(key), ("a cat",))
            return await engine.tasks.answer(wanted, group)

        with anyio.fail_after(TIMEOUT_S):
            yield ask
        group.cancel_scope.cancel()


async def test_an_unforeseen_error_is_written_down(png: bytes) -> None:
    """It is answered as final, so a gateway that writes nothing itself must find it in the database."""
    database = WatchedDatabase()
    async with asking(png, FaultyStorage("http://images.invalid", SystemClock()), database) as ask:
        with pytest.raises(EdgeError) as caught:
            await ask()
    assert caught.value.code is Code.INFERENCE_FAILED
    assert database.called == ["start", "fail INFERENCE_FAILED"]


async def test_a_databases_fault_is_no_answers(
    png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer goes out, and the log has the trace."""
    database = WatchedDatabase(is_faulty=True)
    storage = MemoryObjectStorage("http://images.invalid", SystemClock())
    async with asking(png, storage, database) as ask:
        await ask()
        await ask()
    assert database.called == ["start", "complete"] * 2
    assert UNFORESEEN in caplog.text


async def test_a_database_that_hangs_is_asked_once_in_a_while() -> None:
    """The first write waits for it in vain; those behind it do not, and are counted."""
    database = WatchedDatabase(hangs_on="start")
    metrics = Metrics()
    records = Records(database, metrics, timeout_s=0.01)
    with anyio.fail_after(TIMEOUT_S):
        for _ in range(10):
            await records.started(uuid4())
    assert database.called == ["start"]
    text = metrics.text(is_loaded=True, memory=None).decode()
    assert "s3edge_inference_unrecorded_total 10.0" in text


async def test_no_answer_waits_for_its_start_to_be_written(png: bytes) -> None:
    """A start is of no more use when there is an outcome."""
    database = WatchedDatabase(hangs_on="start")
    storage = MemoryObjectStorage("http://images.invalid", SystemClock())
    async with asking(png, storage, database) as ask:
        await ask()
    assert database.called == ["start", "complete"]
    assert database.returned == ["complete"]
