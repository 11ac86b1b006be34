"""``AsyncClient``: the API, for code on asyncio's event loop."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from s3edge.client import flows, logs
from s3edge.client.aio_handles import (
    AsyncResult,
    AsyncResults,
    AsyncTask,
    Calls,
    result_of,
    task_of,
)
from s3edge.client.aio_raw import AsyncRawClient
from s3edge.client.drivers import Application, AsyncDriver, AsyncTransport, async_transport_to
from s3edge.client.flows import as_id
from s3edge.client.handles import Link, TaskHandle
from s3edge.client.models import Account, Health, RawResponse, UploadedImage
from s3edge.client.multipart import Progress
from s3edge.client.paging import PAGE_SIZE
from s3edge.client.session import (
    FROM_ENVIRONMENT,
    IN_PROCESS_URL,
    MAX_RETRIES,
    FromEnvironment,
    Session,
    Timeout,
    Token,
    open_session,
)
from s3edge.client.sources import ImageSource
from s3edge.client.surroundings import Surroundings


class AsyncClient:
    """
    One user's access to a server.

    It holds a pool of connections: close it, or use it as a context manager. The blocking client may be
    shared by threads; the asynchronous one belongs to the event loop of its first call.

    Args:
        base_url: Where the server is; ``S3EDGE_BASE_URL`` from the environment if it is not given.
        token: The access token, or a function that returns one, which may be a coroutine function; it is
            called when a token is first needed, and again once when the server refuses it. It goes to the
            server's own origin and nowhere else. ``S3EDGE_TOKEN`` if it is left out; an explicit ``None``
            means no token.
        timeout: How long a call may take with all its retries, in seconds, or a ``Timeout``.
        max_retries: How often a call is repeated at the most.
        headers: Sent with every call to the server.
        transport: Sends the requests, for proxies and certificates of your own: an
            ``httpx.AsyncHTTPTransport``, say.
        surroundings: Time and chance, for tests.

    Raises:
        ConfigurationError: Address or token is missing or malformed, or a number makes no sense.
    """

    def __init__(
        self,
        *,
        base_url: str | FromEnvironment = FROM_ENVIRONMENT,
        token: Token | FromEnvironment | None = FROM_ENVIRONMENT,
        timeout: Timeout | float | None = None,
        max_retries: int = MAX_RETRIES,
        headers: Mapping[str, str] | None = None,
        transport: AsyncTransport | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        logs.set_up()
        session = open_session(
            base_url=base_url,
            token=token,
            timeout=timeout,
            max_retries=max_retries,
            headers=headers,
            surroundings=surroundings,
        )
        self._calls = Calls(AsyncDriver(session.surroundings, transport), session)
        self._owns_driver = True

    @classmethod
    def for_app(
        cls,
        app: Callable[..., Any],
        *,
        base_url: str = IN_PROCESS_URL,
        token: Token | None = None,
        timeout: Timeout | float | None = None,
        max_retries: int = MAX_RETRIES,
        headers: Mapping[str, str] | None = None,
        surroundings: Surroundings | None = None,
        runs_lifespan: bool = True,
    ) -> Self:
        """
        Return a client of an application in this process: what is for it is sent over no network.

        Masks that are elsewhere, in a bucket, say, are downloaded from there.

        Args:
            app: An ASGI or a WSGI application.
            base_url: What the application takes itself to be reached at. For a host that has s3edge
                mounted, ``app`` is the host and this ends in the mount's prefix, as in the masks' URLs.
            token: The access token, or a function that returns one. The environment's is not taken.
            timeout: As in ``AsyncClient``.
            max_retries: As in ``AsyncClient``.
            headers: As in ``AsyncClient``.
            surroundings: As in ``AsyncClient``.
            runs_lifespan: Whether an ASGI application's lifespan begins with the first call and ends with
                the client; ``False`` where somebody else runs it.
        """
        return cls(
            base_url=base_url,
            token=token,
            timeout=timeout,
            max_retries=max_retries,
            headers=headers,
            transport=Application(base_url, async_transport_to(app, runs_lifespan=runs_lifespan)),
            surroundings=surroundings,
        )

    def with_options(
        self,
        *,
        timeout: Timeout | float | None = None,
        max_retries: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """
        Return a client with other options, over the same connections and with the same token.

        Closing it does nothing; it ends with the client that it came from.

        Args:
            timeout: How long a call may take with all its retries, in seconds, or a ``Timeout``.
            max_retries: How often a call is repeated at the most.
            headers: Sent besides those that are sent already.

        Raises:
            ConfigurationError: A number makes no sense.
        """
        other = type(self).__new__(type(self))
        session = self._session.with_options(
            timeout=timeout, max_retries=max_retries, headers=headers
        )
        other._calls = Calls(self._calls.driver, session)  # noqa: SLF001 - its own class
        other._owns_driver = False  # noqa: SLF001 - its own class
        return other

    @property
    def with_raw_response(self) -> AsyncRawClient:
        """The same calls, each returning status and headers besides."""
        return AsyncRawClient(self._calls)

    async def upload(
        self,
        source: ImageSource,
        *,
        project_id: UUID | str | None = None,
        on_progress: Progress | None = None,
        idempotency_key: str | None = None,
    ) -> UploadedImage:
        """
        Upload an image: PNG, JPEG or WebP, at most 10 MiB and 50 megapixels.

        It is streamed, and never in memory as a whole. What can be read only once is written to a
        temporary file first.

        Args:
            source: A path, bytes, a binary file, an iterator of bytes, or an image of Pillow's.
            project_id: The project that it belongs to.
            on_progress: Told how many bytes have been sent, and how many there are.
            idempotency_key: Names this upload; by default a fresh one.

        Raises:
            FileTooLarge: Nothing was sent.
            InvalidRequest: It is no such image, or cannot be read.
        """
        return await self._calls.parsed(
            flows.upload(
                self._session,
                source,
                project_id=project_id,
                on_progress=on_progress,
                idempotency_key=idempotency_key,
            )
        )

    async def segment(
        self,
        image: UploadedImage | UUID | str,
        text_prompt: str,
        *,
        project_id: UUID | str | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncTask:
        """
        Ask for a segmentation, which costs a credit; return at once.

        However often the request has to be sent, it is charged once.

        Args:
            image: What ``upload`` returned, or its id or URL.
            text_prompt: What to segment; 1 to 500 characters.
            project_id: The project that the result belongs to.
            idempotency_key: Names this segmentation, across processes too; by default a fresh one.

        Raises:
            InsufficientCredits: The balance does not cover it.
            InvalidRequest: Prompt, image or project cannot be used.
        """
        return task_of(
            await self._calls.run(
                flows.segment(
                    self._session,
                    image,
                    text_prompt,
                    project_id=project_id,
                    idempotency_key=idempotency_key,
                )
            ),
            self._calls,
        )

    def task(self, task: UUID | str | TaskHandle) -> AsyncTask:
        """
        Return the handle of a task that was asked for before, perhaps by another process.

        Nothing is sent: whether there is such a task, ``refresh`` and ``wait`` find out.

        Args:
            task: Its id, or a handle that was unpickled.

        Raises:
            NotFound: The id is no UUID.
        """
        link = Link(self._calls)
        if isinstance(task, TaskHandle):
            return AsyncTask(task.id, task.state, task.idempotency_key, task.replayed, link=link)
        return AsyncTask(as_id(task), link=link)

    async def result(self, result_id: UUID | str) -> AsyncResult:
        """
        Read one result, whole; its id is its task's.

        Raises:
            NotFound: There is no such result, or it is somebody else's.
        """
        flow = flows.read_result(self._session, as_id(result_id))
        return result_of(await self._calls.parsed(flow), self._calls)

    def results(
        self,
        *,
        project_id: UUID | str | None = None,
        status: str | None = None,
        limit_total: int | None = None,
        page_size: int = PAGE_SIZE,
    ) -> AsyncResults:
        """
        Return the user's results, newest first, to be iterated.

        Args:
            project_id: Only those of a project.
            status: Only those in a status: ``pending``, ``processing``, ``done`` or ``error``.
            limit_total: How many at the most, in all.
            page_size: How many a request, at the most; 1 to 100.
        """
        return AsyncResults(
            self._calls,
            project_id=project_id,
            status=status,
            limit_total=limit_total,
            page_size=page_size,
        )

    async def me(self) -> Account:
        """Read the user's tier, balance and limits."""
        return await self._calls.parsed(flows.me(self._session))

    async def health(self) -> Health:
        """Ask whether the server is up; needs no token."""
        return await self._calls.parsed(flows.health(self._session))

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> RawResponse[Any]:
        """
        Send any request, with the token, the time-outs and the retries of every other.

        ``parsed`` is ``None`` where HTTP has no body: after a HEAD, and with a 204.

        Args:
            method: Of HTTP.
            path: Under the server's address; or a whole URL, to which the token goes only if it is there.
            query: Parameters.
            json: The body.
            headers: Further headers.
            idempotency_key: Without one, a POST is not repeated.

        Raises:
            S3EdgeError: The answer is an error.
        """
        return await self._calls.run(
            flows.request(
                self._session,
                method,
                path,
                query=query,
                json=json,
                headers=headers,
                idempotency_key=idempotency_key,
            )
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._owns_driver:
            await self._calls.driver.close()

    async def __aenter__(self) -> Self:
        """
        Return the client.

        Raises:
            ConfigurationError: It was closed.
        """
        self._calls.driver.check()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.close()

    def __repr__(self) -> str:
        """Return where the server is."""
        return f"{type(self).__name__}(base_url={self._session.base_url!r})"

    @property
    def _session(self) -> Session:
        return self._calls.session
