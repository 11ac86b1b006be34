"""The ``InferenceBackend`` port on GPU servers that speak the inference API over HTTP."""

import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from http import HTTPStatus
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import anyio
from attrs import frozen

from s3edge.errors import EdgeError, unavailable
from s3edge.ports import Finding, InferenceBackend, Wiring
from s3edge.values import (
    BatchPrediction,
    BatchPredictRequest,
    ModelInfo,
    Prediction,
    PredictRequest,
)
from s3edge_aiohttp import HttpClient, NoAnswerError
from s3edge_inference.addresses import base_url
from s3edge_inference.examination import examine_server
from s3edge_inference.inference_api import (
    BATCH_PATH,
    HEALTH_PATH,
    KEY_HEADER,
    MODEL_INFO_PATH,
    PREDICT_PATH,
    NotInferenceApiError,
    batch_body,
    predict_body,
    read_batch,
    read_health,
    read_model_info,
    read_prediction,
)
from s3edge_inference.key import api_key
from s3edge_inference.places import PLACE_TIMEOUT_S, Places
from s3edge_inference.refusals import refused
from s3edge_inference.servers import State, Verdict


MAX_SERVERS = 64

MAX_CONNECTIONS = 1000
"""To all servers; as many as tasks that one process may dispatch at once."""

CHECK_TIMEOUT_S = 1.5
"""Within the 2 seconds that ``/health/ready`` gives, so that its message is ours."""

INFO_TIMEOUT_S = 2.0

PROBE_TIMEOUT_S = 1.0
"""With the rest after a failure it stays within the 5 seconds in which service is to be full again."""

SILENCE_S = 30.0
"""Who gives up a prediction that took so long blames the server."""


T = TypeVar("T")

_log = logging.getLogger(__name__)


@frozen
class GpuServer:
    """
    Where a server is.

    Attributes:
        number: Its place in the setting, from 1.
        url: Its base URL, without a trailing slash.
    """

    number: int
    url: str

    def __str__(self) -> str:
        """Return how operators know it."""
        return f"GPU server {self.number} ({urlsplit(self.url).netloc})"


class HttpBackend:
    """
    Has images segmented by one or several servers; an asynchronous context manager.

    Every prediction is one request to one server: the least busy that is not rested after failures
    (``servers``). While all rest, it waits for one. Nothing is repeated here; whoever calls repeats what
    is retryable, and a repeat may go to another server. It sets no time limit of its own on a prediction,
    beyond that wait and connecting.

    Args:
        urls: The servers' base URLs, without trailing slashes.
        key: What they expect in ``X-API-Key``.
        now: Tells the time in seconds; by default the event loop's.
        place_timeout_s: How long a prediction waits while all servers rest.
    """

    def __init__(
        self,
        urls: Sequence[str],
        key: str,
        *,
        now: Callable[[], float] = anyio.current_time,
        place_timeout_s: float = PLACE_TIMEOUT_S,
    ) -> None:
        self._servers = [GpuServer(number, url) for number, url in enumerate(urls, 1)]
        self._headers = {KEY_HEADER: key, "Content-Type": "application/json"}
        self._now = now
        self._places = Places(len(self._servers), now=now, timeout_s=place_timeout_s)
        self._client = HttpClient("the GPU server", connections=MAX_CONNECTIONS)

    async def __aenter__(self) -> Self:
        """Open the pool of connections."""
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection."""
        await self._client.__aexit__(kind, error, trace)

    async def predict(self, request: PredictRequest) -> Prediction:
        """Implement ``InferenceBackend``."""
        return await self._ask_one(
            PREDICT_PATH,
            request.user_id,
            predict_body(request),
            lambda body: read_prediction(body, request.task_id),
        )

    async def predict_batch(self, request: BatchPredictRequest) -> BatchPrediction:
        """Implement ``InferenceBackend``."""
        return await self._ask_one(
            BATCH_PATH,
            request.user_id,
            batch_body(request),
            lambda body: read_batch(body, request.task_id, len(request.prompts)),
        )

    async def model_info(self) -> ModelInfo:
        """Implement ``InferenceBackend``: what the first server says that knows."""
        answers: dict[int, ModelInfo | EdgeError] = {}

        async def ask(server: GpuServer) -> None:
            _, answers[server.number] = await self._model_info(server, INFO_TIMEOUT_S)

        async with anyio.create_task_group() as group:
            for server in self._servers:
                group.start_soon(ask, server)
        in_order = [answers[server.number] for server in self._servers]
        known = [answer for answer in in_order if isinstance(answer, ModelInfo)]
        if not known:
            raise next(answer for answer in in_order if isinstance(answer, EdgeError))
        return known[0]

    async def check(self) -> None:
        """
        Implement ``Checked``: pass as soon as one server is found that would segment.

        ``/health`` needs no key, so a server that refuses every prediction looks well by it; one that
        was rested must also answer a question that needs the key.
        """
        faults: list[str] = []
        states = self._places.states()
        async with anyio.create_task_group() as group:

            async def ask(server: GpuServer, state: State) -> None:
                fault = await self._fault(server, state)
                if fault is None:
                    group.cancel_scope.cancel()
                else:
                    faults.append(fault)

            for server, state in zip(self._servers, states, strict=True):
                group.start_soon(ask, server, state)
        if len(faults) == len(self._servers):
            counted = ", ".join(f"{count} {fault}" for fault, count in Counter(faults).items())
            raise unavailable(f"No GPU server can be used: {counted}.")

    async def examine(self) -> AsyncIterator[Finding]:
        """Implement ``Examinable``: health, model and key of each server."""
        for server in self._servers:
            async with aclosing(
                examine_server(self._client, str(server), server.url, self._headers)
            ) as findings:
                async for finding in findings:
                    yield finding

    async def _ask_one(
        self, path: str, user_id: UUID, body: bytes, read: Callable[[bytes], T]
    ) -> T:
        """Send one request to one server, and tell the pool how the server did."""
        lease = await self._places.take(user_id, self._answers)
        server = self._servers[lease.server]
        verdict = Verdict.UNKNOWN
        started = self._now()
        deadline = anyio.current_effective_deadline()
        try:
            verdict, outcome = await self._ask(server, "POST", path, read, body=body)
            if verdict is Verdict.DOUBTED:
                verdict = await self._judged(server)
        except anyio.get_cancelled_exc_class():
            # From inside, a timeout of the caller's and a stop of this process look the same. But a
            # timeout comes at the caller's deadline, and a stop before it. Callers that keep their
            # time by other means than anyio's show no deadline; then a long wait has to do.
            timed_out = -math.inf < deadline <= anyio.current_time()
            if timed_out or self._now() - started >= SILENCE_S:
                verdict = Verdict.FAILED
                _log.warning("%s did not answer a prediction in time", server)
            raise
        finally:
            self._places.give_back(lease, verdict)
        if isinstance(outcome, EdgeError):
            raise outcome
        return outcome

    async def _judged(self, server: GpuServer) -> Verdict:
        """Return whether a server that failed on a request fails also when no image is to blame."""
        verdict, _ = await self._model_info(server, PROBE_TIMEOUT_S)
        return Verdict.DOUBTED if verdict is Verdict.WELL else verdict

    async def _answers(self, index: int) -> tuple[Verdict, bool]:
        """
        Ask a server that was rested a small question, so that no task waits for a silent one.

        It is one that needs the key and the model, as a prediction does.
        """
        verdict, known = await self._model_info(self._servers[index], PROBE_TIMEOUT_S)
        return verdict, isinstance(known, ModelInfo)

    async def _fault(self, server: GpuServer, state: State) -> str | None:
        """Return why a server would not segment, in words that go with a number; ``None`` if it would."""
        if state is State.RESTING:
            return "resting after failures"
        with anyio.move_on_after(CHECK_TIMEOUT_S):
            fault = await self._fault_of_health(server)
            if fault is None and state is State.DUE:
                _, known = await self._model_info(server, CHECK_TIMEOUT_S)
                fault = None if isinstance(known, ModelInfo) else "resting after failures"
            return fault
        return "without an answer"

    async def _fault_of_health(self, server: GpuServer) -> str | None:
        try:
            answer = await self._client.fetch(
                "GET", server.url + HEALTH_PATH, timeout_s=CHECK_TIMEOUT_S
            )
            health = read_health(answer.body)
        except NoAnswerError:
            return "without an answer"
        except NotInferenceApiError:
            return "without a sound answer"
        if answer.status != HTTPStatus.OK or health.status != "ok":
            return "not well"
        return None if health.model_loaded else "without its model loaded"

    async def _model_info(
        self, server: GpuServer, timeout_s: float
    ) -> tuple[Verdict, ModelInfo | EdgeError]:
        verdict, known = await self._ask(
            server, "GET", MODEL_INFO_PATH, read_model_info, timeout_s=timeout_s
        )
        # It is about nobody's image, so there is nothing to doubt.
        return Verdict.FAILED if verdict is Verdict.DOUBTED else verdict, known

    async def _ask(
        self,
        server: GpuServer,
        method: str,
        path: str,
        read: Callable[[bytes], T],
        *,
        timeout_s: float | None = None,
        body: bytes | None = None,
    ) -> tuple[Verdict, T | EdgeError]:
        """Make a request; return what it says of the server, and the answer or why there is none."""
        try:
            answer = await self._client.fetch(
                method, server.url + path, timeout_s=timeout_s, headers=self._headers, body=body
            )
        except NoAnswerError as error:
            _log.warning("%s gave no answer: %s", server, error.reason)
            return Verdict.FAILED, _passing_fault("The GPU server gave no answer; try again.")
        if answer.status != HTTPStatus.OK:
            refusal = refused(answer)
            if refusal.advice is not None:
                level = logging.WARNING if refusal.error.retryable else logging.ERROR
                _log.log(level, "%s %s", server, refusal.advice)
            return refusal.verdict, refusal.error
        try:
            return Verdict.WELL, read(answer.body)
        except NotInferenceApiError as error:
            _log.warning("%s gave an answer that is not the inference API's: %s", server, error)
            return Verdict.FAILED, _passing_fault("The GPU server gave no sound answer; try again.")


def _passing_fault(message: str) -> EdgeError:
    # Soon: another server may take the next try.
    return unavailable(message, retry_after_s=1)


def from_url(value: str, wiring: Wiring) -> InferenceBackend:
    """
    Return the backend of an ``http://...`` setting: one base URL, or several, separated by commas.

    Raises:
        ValueError: A URL is malformed, or ``API_SECRET_KEY`` is missing or cannot be sent.
    """
    urls = [base_url(part.strip(), number) for number, part in enumerate(value.split(","), 1)]
    if len(set(urls)) < len(urls):
        raise ValueError("a GPU server is named twice; name each once")
    if len(urls) > MAX_SERVERS:
        message = f"there are {len(urls)} GPU servers; name {MAX_SERVERS} at the most"
        raise ValueError(message)
    key = api_key(wiring.vendor)
    if not key:
        raise ValueError("GPU servers need a key; set API_SECRET_KEY to what they expect")
    return HttpBackend(urls, key)
