"""
The ``InferenceBackend`` port on the inference server's own engine, in a process that takes tasks itself.

A server is reached and asked; a machine that cannot be reached runs a worker of the queue instead, and
the worker asks this. What becomes of a task is the worker's to write down, so the engine has no database.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self
from uuid import UUID

import anyio
from anyio.abc import TaskGroup

from s3edge.ports import ObjectStorage
from s3edge.rules.prompts import clean_prompt
from s3edge.values import (
    BatchPrediction,
    BatchPredictRequest,
    ModelInfo,
    Prediction,
    PredictRequest,
)
from s3edge_inference.predictors import Predictor
from s3edge_inference.server.engine import Engine
from s3edge_inference.server.messages import Answer, Wanted
from s3edge_inference.server.options import ServerOptions


class EngineBackend:
    """
    Runs a predictor as the inference server does; an asynchronous context manager.

    The tasks that a worker runs at once go through the model together. What a worker gives up when it is
    asked to stop is dropped on the way out.

    Args:
        predictor: The model.
        storage: Where uploads are read and masks are kept; opened by the caller.
        options: The limits.

    Attributes:
        capacity: How many tasks fill the model's batches, for the worker.
    """

    def __init__(
        self, predictor: Predictor, storage: ObjectStorage, options: ServerOptions
    ) -> None:
        self._engine = Engine(predictor, storage, None, options)
        self.capacity = self._engine.capacity
        self._stack = AsyncExitStack()
        self._group: TaskGroup

    async def __aenter__(self) -> Self:
        """Open what reads images, and have the model serve once it is loaded."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._engine.images)
            self._group = await stack.enter_async_context(anyio.create_task_group())
            self._group.start_soon(self._engine.serve)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop what still runs, and close every connection."""
        self._group.cancel_scope.cancel()
        await self._stack.__aexit__(kind, error, trace)

    @property
    def failure(self) -> str | None:
        """Why the model could not be loaded, or is lost, in one line; else ``None``."""
        return self._engine.failure

    async def until_failed(self) -> None:
        """Return when there is a ``failure``, after which every task is refused."""
        await self._engine.failed.wait()

    async def load(self) -> None:
        """Load the model; until that was done, every task is refused with ``MODEL_NOT_LOADED``."""
        await self._engine.load()

    async def predict(self, request: PredictRequest) -> Prediction:
        """Implement ``InferenceBackend``."""
        answer = await self._answer(
            request.task_id, request.user_id, request.image_url, [request.text_prompt]
        )
        return answer.predictions[0]

    async def predict_batch(self, request: BatchPredictRequest) -> BatchPrediction:
        """Implement ``InferenceBackend``."""
        answer = await self._answer(
            request.task_id, request.user_id, request.image_url, request.prompts
        )
        return BatchPrediction(request.task_id, answer.predictions, answer.total_inference_time_ms)

    async def model_info(self) -> ModelInfo:
        """Implement ``InferenceBackend``."""
        return self._engine.model.info

    async def check(self) -> None:
        """
        Implement ``Checked``.

        Raises:
            EdgeError: ``MODEL_NOT_LOADED``.
        """
        await self.model_info()

    async def _answer(
        self, task_id: UUID, user_id: UUID, image_url: str, prompts: Sequence[str]
    ) -> Answer:
        cleaned = tuple(clean_prompt(prompt) for prompt in prompts)
        wanted = Wanted(task_id, user_id, image_url, cleaned)
        return await self._engine.tasks.answer(wanted, self._group)
