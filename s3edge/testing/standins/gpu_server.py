"""
A GPU server without a GPU: the inference API over real HTTP, with faults on demand.

It answers as the contract has it, and shares no message types with our own client: what both got
wrong alike would go unnoticed. Its model picks what is brighter than half. A repeated task gets the
first answer and runs nothing twice, also when both come at once.

As a process (``GpuServerProcess`` does it for tests)::

    GPU_SERVER_API_KEY=... python -m s3edge.testing.standins.gpu_server --port 0 --storage memory:

prints ``Serving at http://127.0.0.1:PORT`` on standard error. ``--storage`` is ``memory:`` (masks are
kept, and served by the stand-in itself) or ``http://127.0.0.1:9000/bucket`` with ``--access-key-id``
and ``GPU_SERVER_SECRET_ACCESS_KEY``. With ``--supabase-url`` and ``GPU_SERVER_SERVICE_KEY``, or with
``GPU_SERVER_DATABASE_URL`` alone, it writes ``processing`` and the outcome into the database by itself.
Secrets come by environment, because everybody can list the arguments of a process. In the same
process: ``create_app``.

``POST /_control`` changes what it does (``gpu_behaviour.Behaviour`` says what each field means)::

    {"latency_s": 0.2, "fail": [503, 500], "hang": 0.02, "silent": false, "garbage": false,
     "model_loaded": true, "write": 0.05, "write_late": 0.5, "duplicate": false, "seed": 7}

Fields that are left out stay as they are. ``GET /_control`` returns the behaviour and the counters
``predict_calls`` and ``model_runs`` (by task), ``in_flight``, ``failed``, ``hung``, ``written`` and
``written_late``. Neither needs the key.
"""

import argparse
import hmac
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from http import HTTPStatus
from types import FrameType
from typing import Annotated, Any
from uuid import UUID

import anyio
import httpx
import msgspec
import uvicorn
from anyio import to_thread
from msgspec import Meta, Struct
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from s3edge.masks import MASK_TYPE
from s3edge.rules.keys import mask_key
from s3edge.testing.standins.gpu_behaviour import Controls, Writing
from s3edge.testing.standins.gpu_masks import (
    ImageHostDownError,
    MaskStoreDownError,
    StoreMask,
    UnusableImageError,
    download,
    s3_masks,
    segment,
)
from s3edge.testing.standins.gpu_outcomes import Outcomes, PostgresOutcomes, SupabaseOutcomes
from s3edge.testing.standins.gpu_process import GpuServerProcess


__all__ = ["GpuServerProcess", "create_app"]

MODEL_NAME = "stand-in-threshold"
MODEL_VERSION = "1"

MAX_BODY_BYTES = 64 * 1024

Prompt = Annotated[str, Meta(min_length=1, max_length=500)]


class _Predict(Struct):
    image_url: str
    text_prompt: Prompt
    user_id: UUID
    task_id: UUID

    def all_prompts(self) -> Sequence[str]:
        return [self.text_prompt]

    def answer(self, results: Sequence[dict[str, Any]], elapsed_ms: float) -> dict[str, Any]:  # noqa: ARG002 - as the other's
        return results[0]


class _Batch(Struct):
    image_url: str
    prompts: Annotated[list[Prompt], Meta(min_length=1, max_length=10)]
    user_id: UUID
    task_id: UUID

    def all_prompts(self) -> Sequence[str]:
        return self.prompts

    def answer(self, results: Sequence[dict[str, Any]], elapsed_ms: float) -> dict[str, Any]:
        return {
            "task_id": str(self.task_id),
            "results": results,
            "total_inference_time_ms": elapsed_ms,
        }


class _Refusal(Exception):  # noqa: N818 - an answer like any other
    """Another answer than 200."""

    def __init__(self, status: int, code: str, message: str, *, retry_after_s: int = 0) -> None:
        super().__init__(status, code)
        self.status = status
        self.body = {"error": code, "message": message}
        self.headers = {"Retry-After": str(retry_after_s)} if retry_after_s else None


def create_app(
    api_key: str, *, store: StoreMask | None = None, outcomes: Outcomes | None = None
) -> Starlette:
    """
    Return the stand-in as an application.

    Args:
        api_key: What ``X-API-Key`` must hold.
        store: Keeps masks; by default the application itself does, and serves them.
        outcomes: Writes outcomes into the database; by default nobody does.
    """
    return _GpuServer(api_key, store, outcomes).app()


class _GpuServer:
    """The state behind the endpoints."""

    def __init__(self, api_key: str, store: StoreMask | None, outcomes: Outcomes | None) -> None:
        self._api_key = api_key
        self._store = store
        self._outcomes = outcomes
        self._controls = Controls()
        self._kept: dict[str, bytes] = {}
        self._answers: dict[tuple[UUID, type], dict[str, Any]] = {}
        self._running: dict[UUID, anyio.Lock] = {}
        self._client: httpx.AsyncClient

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/api/v1/predict", self._predict, methods=["POST"]),
                Route("/api/v1/predict/batch", self._predict_batch, methods=["POST"]),
                Route("/api/v1/model/info", self._model_info),
                Route("/_control", self._control, methods=["GET", "POST"]),
                Route("/masks/{rest:path}", self._mask),
            ],
            exception_handlers={_Refusal: _refused},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:  # noqa: ARG002 - Starlette's signature
        async with (
            httpx.AsyncClient(trust_env=False) as self._client,
            self._outcomes.opened() if self._outcomes else nullcontext(),
        ):
            yield

    async def _health(self, request: Request) -> Response:  # noqa: ARG002 - as above
        return _json(
            {
                "status": "ok",
                "model_loaded": self._controls.behaviour.model_loaded,
                "gpu_available": False,
                "gpu_name": None,
                "vram_used_mb": 0,
                "vram_total_mb": 0,
            }
        )

    async def _model_info(self, request: Request) -> Response:
        self._authorize(request)
        self._need_model()
        return _json(
            {
                "model_name": MODEL_NAME,
                "model_version": MODEL_VERSION,
                "parameters": 0,
                "weights_size_gb": 0.0,
                "device": "cpu",
                "dtype": "uint8",
            }
        )

    async def _predict(self, request: Request) -> Response:
        return await self._serve(request, _Predict)

    async def _predict_batch(self, request: Request) -> Response:
        return await self._serve(request, _Batch)

    async def _control(self, request: Request) -> Response:
        if request.method == "POST":
            try:
                self._controls.change(await request.body())
            except msgspec.MsgspecError as error:
                raise _Refusal(HTTPStatus.BAD_REQUEST, "INVALID_REQUEST", str(error)) from None
        return _json(self._controls.report())

    async def _mask(self, request: Request) -> Response:
        found = self._kept.get(request.url.path.removeprefix("/"))
        if found is None:
            raise _Refusal(HTTPStatus.NOT_FOUND, "NOT_FOUND", "There is no such mask.")
        return Response(found, media_type=MASK_TYPE)

    async def _serve(self, request: Request, kind: type[_Predict | _Batch]) -> Response:
        """Answer a prediction: the key first, then the faults of the day, then the work."""
        self._authorize(request)
        wanted = await _body(request, kind)
        self._controls.predict_calls[str(wanted.task_id)] += 1
        self._controls.in_flight += 1
        try:
            if not await self._outlast_silence(request):
                return Response()
            await self._misbehave()
            if self._controls.behaviour.garbage:
                return Response(self._controls.garbage(str(wanted.task_id)))
            self._need_model()
            answer, afterwards = await self._answer(wanted, str(request.base_url))
            return _json(answer, afterwards=afterwards)
        finally:
            self._controls.in_flight -= 1

    def _authorize(self, request: Request) -> None:
        given = request.headers.get("x-api-key", "")
        if not hmac.compare_digest(given.encode(), self._api_key.encode()):
            raise _Refusal(HTTPStatus.UNAUTHORIZED, "UNAUTHORIZED", "The API key is wrong.")

    def _need_model(self) -> None:
        if not self._controls.behaviour.model_loaded:
            message = "The model is not loaded."
            raise _Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "MODEL_NOT_LOADED", message)

    async def _outlast_silence(self, request: Request) -> bool:
        """Wait while there must be no answer; tell whether the client is still there."""
        hangs = self._controls.next_hangs()
        if not self._controls.keeps_waiting(hangs=hangs):
            return True
        is_there = True
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                nonlocal is_there
                # The body was read, so that what comes next is the end of the connection.
                await request.receive()
                is_there = False
                group.cancel_scope.cancel()

            group.start_soon(watch)
            await self._controls.wait(hangs=hangs)
            group.cancel_scope.cancel()
        return is_there

    async def _misbehave(self) -> None:
        await anyio.sleep(self._controls.behaviour.latency_s)
        status = self._controls.next_failure()
        if status is not None:
            raise _Refusal(status, "ON_DEMAND", "This is a failure on demand.")

    async def _answer(
        self, wanted: _Predict | _Batch, base_url: str
    ) -> tuple[dict[str, Any], BackgroundTask | None]:
        """
        Run the model once a task; whoever asks meanwhile waits for the same answer.

        Returns:
            The answer, and what is to be done when it has gone out.
        """
        name = (wanted.task_id, type(wanted))
        async with self._running.setdefault(wanted.task_id, anyio.Lock()):
            if name in self._answers:
                return self._answers[name], None
            writing = Writing.NEVER if self._outcomes is None else self._controls.next_writing()
            results, elapsed_ms = await self._run(wanted, base_url, writing)
            afterwards = None
            if writing is Writing.BEFORE_ANSWER:
                await self._report(wanted.task_id, results[0], writing)
            elif writing is Writing.AFTER_ANSWER:
                afterwards = BackgroundTask(self._report, wanted.task_id, results[0], writing)
            self._answers[name] = wanted.answer(results, elapsed_ms)
            return self._answers[name], afterwards

    async def _run(
        self, wanted: _Predict | _Batch, base_url: str, writing: Writing
    ) -> tuple[Sequence[dict[str, Any]], float]:
        """Return a result for each prompt, and the milliseconds that it took."""
        if self._outcomes is not None and writing is not Writing.NEVER:
            await self._outcomes.start(wanted.task_id)
        try:
            image = await download(self._client, wanted.image_url)
            self._controls.model_runs[str(wanted.task_id)] += 1
            started = time.monotonic()
            png, found = await to_thread.run_sync(segment, image)
            elapsed_ms = round((time.monotonic() - started) * 1000, 3)
        except UnusableImageError as error:
            raise _Refusal(HTTPStatus.BAD_REQUEST, "INVALID_IMAGE", str(error)) from None
        except ImageHostDownError:
            message = "The image's host does not answer."
            raise _Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, "IMAGE_UNREACHABLE", message, retry_after_s=1
            ) from None
        try:
            mask_urls = [
                await self._keep(mask_key(wanted.user_id, wanted.task_id, index), png, base_url)
                for index, _ in enumerate(wanted.all_prompts())
            ]
        except MaskStoreDownError:
            message = "The mask cannot be stored."
            raise _Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, "STORAGE_UNREACHABLE", message, retry_after_s=1
            ) from None
        results = [
            {
                "task_id": str(wanted.task_id),
                "mask_url": mask_url,
                "labels": [prompt],
                "inference_time_ms": elapsed_ms,
                "confidence": 1.0 if found else 0.0,
            }
            for mask_url, prompt in zip(mask_urls, wanted.all_prompts(), strict=True)
        ]
        return results, elapsed_ms

    async def _keep(self, key: str, png: bytes, base_url: str) -> str:
        if self._store is not None:
            return await self._store(key, png)
        self._kept[key] = png
        return base_url + key

    async def _report(self, task_id: UUID, result: dict[str, Any], writing: Writing) -> None:
        """Write an outcome into the database."""
        assert self._outcomes is not None
        metadata = {
            "inference_time_ms": result["inference_time_ms"],
            "confidence": result["confidence"],
            "model_version": MODEL_VERSION,
        }
        heard = [
            await self._outcomes.complete(task_id, result["mask_url"], result["labels"], metadata)
            for _ in range(2 if self._controls.behaviour.duplicate else 1)
        ]
        if any(heard):
            self._controls.count_written(writing)


async def _body(request: Request, kind: type[_Predict | _Batch]) -> _Predict | _Batch:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise _Refusal(HTTPStatus.BAD_REQUEST, "INVALID_REQUEST", "The body is too long.")
    try:
        return msgspec.json.decode(bytes(content), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _Refusal(HTTPStatus.BAD_REQUEST, "INVALID_REQUEST", str(error)) from None


def _json(
    document: Any, status: int = HTTPStatus.OK, *, afterwards: BackgroundTask | None = None
) -> Response:
    body = msgspec.json.encode(document)
    return Response(body, status, media_type="application/json", background=afterwards)


async def _refused(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's signature
    assert isinstance(error, _Refusal)
    response = _json(error.body, error.status)
    response.headers.update(error.headers or {})
    return response


def main() -> None:
    """Serve until a signal asks to stop."""
    options = _options()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", options.port))
    listener.listen()
    app = create_app(
        _secret("API_KEY"), store=_store(options), outcomes=_outcomes(options.supabase_url)
    )
    # uvicorn raises the signal again when it has stopped; that a stop worked is no failure.
    signal.signal(signal.SIGTERM, _exit_well)
    if options.until_stdin_ends:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    print(f"Serving at http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)  # noqa: T201 - its own news
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run([listener])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A GPU server without a GPU, for tests.")
    parser.add_argument("--port", type=int, default=0, help="where to listen; 0 takes a free one")
    parser.add_argument("--storage", default="memory:", help="memory:, or http://host:port/bucket")
    parser.add_argument("--access-key-id", default="", help="of the storage")
    parser.add_argument("--region", default="us-east-1", help="of the storage")
    parser.add_argument("--public-base-url", default="", help="how masks are addressed")
    parser.add_argument("--supabase-url", default="", help="where to write outcomes, if at all")
    parser.add_argument(
        "--until-stdin-ends", action="store_true", help="end with whoever started it"
    )
    options = parser.parse_args()
    if not _secret("API_KEY"):
        parser.error("set GPU_SERVER_API_KEY to what X-API-Key must hold")
    if options.supabase_url and _secret("DATABASE_URL"):
        parser.error(
            "leave out --supabase-url or GPU_SERVER_DATABASE_URL: one of them is written to"
        )
    return options


def _store(options: argparse.Namespace) -> StoreMask | None:
    if options.storage == "memory:":
        return None
    endpoint, _, bucket = options.storage.rstrip("/").rpartition("/")
    return s3_masks(
        endpoint,
        bucket,
        access_key_id=options.access_key_id,
        secret_access_key=_secret("SECRET_ACCESS_KEY"),
        region=options.region,
        public_base_url=options.public_base_url or None,
    )


def _outcomes(supabase_url: str) -> Outcomes | None:
    database_url = _secret("DATABASE_URL")
    if supabase_url:
        return SupabaseOutcomes(supabase_url, _secret("SERVICE_KEY"))
    return PostgresOutcomes(database_url) if database_url else None


def _secret(name: str) -> str:
    return os.environ.get(f"GPU_SERVER_{name}", "")


def _end_with_stdin() -> None:
    # Past the interpreter's own buffers, whose lock this thread would hold when it ends.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(0)


def _exit_well(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
    sys.exit(0)


if __name__ == "__main__":
    main()
