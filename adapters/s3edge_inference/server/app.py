"""The inference API as an application, and the life of what is behind it."""

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from http import HTTPStatus

import anyio
from anyio.abc import TaskGroup, TaskStatus
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from s3edge.errors import Code, EdgeError
from s3edge.ports import Checked, Database, ObjectStorage
from s3edge_inference.inference_api import (
    BATCH_PATH,
    HEALTH_PATH,
    KEY_HEADER,
    MODEL_INFO_PATH,
    PREDICT_PATH,
)
from s3edge_inference.predictors import Predictor
from s3edge_inference.server.engine import Engine
from s3edge_inference.server.messages import (
    Kind,
    OnePrompt,
    SeveralPrompts,
    health_answer,
    model_info_answer,
)
from s3edge_inference.server.metrics import CONTENT_TYPE
from s3edge_inference.server.options import MAX_BODY_BYTES, ServerOptions
from s3edge_inference.server.refusals import Refused, json_response, refused, wrong_key


METRICS_PATH = "/metrics"

OK = "OK"

_BEARER = "bearer "

_log = logging.getLogger(__name__)


class InferenceServer:
    """
    Answers the inference API with a predictor.

    ``/health`` is for everybody; the rest needs the key. ``/metrics`` takes it as a bearer token too,
    which is what Prometheus can send.

    Args:
        predictor: The model; it is loaded when the application starts, in the background.
        storage: Where uploads are read and masks are kept.
        database: Where the server writes what becomes of tasks by itself, if anywhere.
        options: The key and the limits.
        give_up: Called when the model cannot be loaded, or hangs, or nothing can be run any more for
            another reason, so that the process ends.
    """

    def __init__(
        self,
        predictor: Predictor,
        storage: ObjectStorage,
        database: Database | None,
        options: ServerOptions,
        *,
        give_up: Callable[[], None],
    ) -> None:
        self._options = options
        self._give_up = give_up
        self._database = database
        self._engine = engine = Engine(predictor, storage, database, options)
        self._metrics, self._model, self._tasks = engine.metrics, engine.model, engine.tasks
        self._dependencies: Mapping[str, Checked | None] = {
            "storage": storage,
            "database": database,
        }
        self._resources: Collection[object] = (storage, database, engine.images)
        self._group: TaskGroup
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = anyio.Event()
        self._is_stopping = False

    @property
    def failure(self) -> str | None:
        """Why the model could not be loaded, or is lost, or nothing can be run; else ``None``."""
        return self._engine.failure

    def app(self) -> Starlette:
        """Return the application; it serves once."""
        return Starlette(
            routes=[
                Route(HEALTH_PATH, self._health),
                Route(PREDICT_PATH, self._answering(OnePrompt()), methods=["POST"]),
                Route(BATCH_PATH, self._answering(SeveralPrompts()), methods=["POST"]),
                Route(MODEL_INFO_PATH, self._model_info),
                Route(METRICS_PATH, self._metrics_text),
            ],
            exception_handlers={
                Refused: _respond,
                HTTPException: _respond_plainly,
                Exception: _respond_to_unforeseen,
            },
            lifespan=self._lifespan,
        )

    def stop_taking(self) -> None:
        """
        Refuse new tasks from now on; those that are under way have the grace to end.

        What has not ended by then is answered with 503, so that the gateway tries it again. A signal
        handler may call it.
        """
        if self._is_stopping:
            return
        self._is_stopping = True
        self._tasks.stop_taking()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:  # noqa: ARG002 - Starlette's signature
        async with AsyncExitStack() as stack:
            for part in self._resources:
                if isinstance(part, AbstractAsyncContextManager):
                    await stack.enter_async_context(part)
            self._loop = asyncio.get_running_loop()
            if self._is_stopping:
                self._stopping.set()
            async with anyio.create_task_group() as group:
                await group.start(self._work)
                yield
                self.stop_taking()

    async def _work(self, *, task_status: TaskStatus[None]) -> None:
        """Load, and do what is asked for, until the stop and the grace behind it."""
        try:
            async with anyio.create_task_group() as self._group:
                self._group.start_soon(self._load_and_serve)
                self._group.start_soon(self._check_dependencies)
                task_status.started()
                await self._stopping.wait()
                with anyio.move_on_after(self._options.grace_s):
                    await self._tasks.until_none_is_under_way()
                self._group.cancel_scope.cancel()
        except Exception:  # noqa: BLE001 - logged with its trace; the process ends, as below
            _log.exception("the inference server raised an unforeseen error")
        if not self._is_stopping:
            # Nor need there be an error: a cancellation that some library lets out ends the group too.
            self._engine.fail("what runs tasks ended, and nobody had asked it to; see the log")
            self.stop_taking()
            self._give_up()

    async def _load_and_serve(self) -> None:
        await self._engine.load()
        if self.failure is None:
            await self._engine.serve()
        self._give_up()

    async def _check_dependencies(self) -> None:
        """Say at the start what will be of no use, such as keys that are wrong."""
        for name, part in self._dependencies.items():
            try:
                if part is not None:
                    await part.check()
                if part is self._database and self._database is not None:
                    # What needs the rights that writing outcomes needs; the check does not.
                    await self._database.backlog()
            except EdgeError as error:
                _log.warning("the %s cannot be used now: %s", name, error.message)
            except Exception:  # noqa: BLE001 - an adapter's fault, logged with its trace
                _log.exception("the %s's adapter raised an unforeseen error", name)

    async def _health(self, request: Request) -> Response:  # noqa: ARG002 - Starlette's signature
        status = "stopping" if self._is_stopping else "ok"
        if self._model.hangs:
            status = "hanging"
        memory = await self._model.memory()
        return json_response(health_answer(status, is_loaded=self._model.is_loaded, memory=memory))

    async def _model_info(self, request: Request) -> Response:
        self._authorize(request.headers.get(KEY_HEADER, ""))
        try:
            return json_response(model_info_answer(self._model.info))
        except EdgeError as error:
            raise refused(error) from None

    async def _metrics_text(self, request: Request) -> Response:
        given = request.headers.get("authorization", "")
        is_bearer = given.lower().startswith(_BEARER)
        self._authorize(given[len(_BEARER) :] if is_bearer else request.headers.get(KEY_HEADER, ""))
        memory = await self._model.memory()
        text = self._metrics.text(is_loaded=self._model.is_loaded, memory=memory)
        return Response(text, media_type=CONTENT_TYPE)

    def _answering(self, kind: Kind) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                response = await self._predict(request, kind)
            except EdgeError as error:
                self._metrics.answered(error.code)
                raise refused(error) from None
            except Refused as error:
                self._metrics.answered(error.code)
                raise
            except ClientDisconnect:
                # It was gone before it had said what it wants; nobody reads this.
                return Response(status_code=HTTPStatus.BAD_REQUEST)
            self._metrics.answered(OK)
            return response

        return answer

    async def _predict(self, request: Request, kind: Kind) -> Response:
        self._authorize(request.headers.get(KEY_HEADER, ""))
        wanted = kind.read(await _body(request))
        answer = await self._tasks.answer(wanted, self._group)
        return json_response(kind.answered(wanted, answer))

    def _authorize(self, given: str) -> None:
        """Compare the key in a time that says nothing of where it differs."""
        if not hmac.compare_digest(given.encode(), self._options.key.encode()):
            raise wrong_key()


async def _body(request: Request) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise EdgeError(Code.INVALID_REQUEST, "The request is too long.")
    return bytes(content)


async def _respond(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's signature
    assert isinstance(error, Refused)  # noqa: S101 - for the type checker: it is registered so
    return error.response()


async def _respond_plainly(request: Request, error: Exception) -> Response:  # noqa: ARG001 - as above
    """Answer an unknown path or method as everything else is answered."""
    assert isinstance(error, HTTPException)  # noqa: S101 - likewise
    status = HTTPStatus(error.status_code)
    return json_response({"error": status.name, "message": error.detail}, status, error.headers)


async def _respond_to_unforeseen(request: Request, error: Exception) -> Response:  # noqa: ARG001 - as above
    """Answer in the API's words; the error goes on to the log, with its trace."""
    failed = EdgeError(Code.INFERENCE_FAILED, "The inference server failed.")
    return refused(failed).response()
