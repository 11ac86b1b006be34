"""
Images that wait for the model go through it together.

A batch begins with the image that has waited longest. It is run when it is full, or when that image has
waited long enough for others. On a busy server nobody waits for company: while one batch runs, the next
one fills.
"""

import time
from collections import deque
from collections.abc import Sequence

import anyio
from attrs import define, field

from s3edge.errors import EdgeError
from s3edge_inference.predictors import Segmentation
from s3edge_inference.server.metrics import Metrics
from s3edge_inference.server.model import Item, Model, Segmented


@define(eq=False)
class _Waiting:
    """
    One image, until it has been through the model.

    Attributes:
        item: The image, and what to pick from it.
        since: When it came.
        ended: Set when there is an answer.
        answer: What became of it.
        elapsed_ms: What the model took for its batch.
    """

    item: Item
    since: float
    ended: anyio.Event = field(factory=anyio.Event)
    answer: Segmented = ()
    elapsed_ms: float = 0.0


class Batcher:
    """
    The queue in front of a model; who puts something into it bounds it.

    Args:
        model: Runs the batches, as many at once as it has lanes.
        size: How many images a batch has at the most.
        wait_s: How long the first image of a batch waits for others.
        metrics: Are told of each batch, and of the waiting.
    """

    def __init__(self, model: Model, *, size: int, wait_s: float, metrics: Metrics) -> None:
        self._model = model
        self._size = model.batch_size(size)
        self._wait_s = wait_s
        self._metrics = metrics
        self._queue: deque[_Waiting] = deque()
        self._came = anyio.Event()
        self._lately_s = 0.0

    @property
    def depth(self) -> int:
        """How many images wait."""
        return len(self._queue)

    def wait_ahead_s(self) -> float:
        """Return about how long an image that came now would wait, by what batches took lately."""
        batches = len(self._queue) / (self._size * self._model.lanes)
        return batches * self._lately_s

    async def segment(self, item: Item) -> tuple[Sequence[Segmentation], float]:
        """
        Wait for the model; return a segmentation a prompt, and the milliseconds that its batch took.

        Raises:
            EdgeError: What the model says of the image.
        """
        self._model.check_hangs()
        waiting = _Waiting(item, time.monotonic())
        self._queue.append(waiting)
        self._came.set()
        self._came = anyio.Event()
        await waiting.ended.wait()
        if isinstance(waiting.answer, EdgeError):
            raise waiting.answer
        return waiting.answer, waiting.elapsed_ms

    async def serve(self) -> None:
        """Run batches until cancelled, or until the model hangs; then whatever waits is refused."""
        async with anyio.create_task_group() as group:
            for _ in range(self._model.lanes):
                group.start_soon(self._serve_lane)

    async def _serve_lane(self) -> None:
        while not self._model.hangs:
            await self._until_there_are(1)
            waits_s = self._queue[0].since + self._wait_s - time.monotonic()
            with anyio.move_on_after(max(0.0, waits_s)):
                await self._until_there_are(self._size)
            # Another lane may have been quicker.
            batch = [self._queue.popleft() for _ in range(min(self._size, len(self._queue)))]
            if batch:
                await self._run(batch)

    async def _until_there_are(self, count: int) -> None:
        while len(self._queue) < count:
            await self._came.wait()

    async def _run(self, batch: Sequence[_Waiting]) -> None:
        started = time.monotonic()
        self._metrics.batch(len(batch))
        for waiting in batch:
            self._metrics.took("wait", started - waiting.since)
        with self._metrics.timed("predict"):
            answers = await self._answers(batch)
        self._lately_s = time.monotonic() - started
        for waiting, answer in zip(batch, answers, strict=True):
            waiting.elapsed_ms = round(self._lately_s * 1000, 3)
            waiting.answer = answer
            waiting.ended.set()

    async def _answers(self, batch: Sequence[_Waiting]) -> Sequence[Segmented]:
        try:
            return await self._model.run([waiting.item for waiting in batch])
        except EdgeError as error:
            for waiting in self._queue:
                waiting.answer = error
                waiting.ended.set()
            self._queue.clear()
            return [error for _ in batch]
