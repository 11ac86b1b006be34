"""One session of the SDK's, the same in both colours, written down as it went over the wire."""

from collections.abc import Callable
from uuid import UUID, uuid4

import httpx
from attrs import define, field, frozen

from s3edge.client import AsyncClient, Client, S3EdgeError
from s3edge.testing.server import ServerProcess
from tests.e2e.colours import AnyClient, AnyResult, AnyTask, Colour, done, listed
from tests.e2e.likeness import Headers, likened, likened_bytes, likened_headers


@frozen
class Exchange:
    """A request as it was sent, and its answer; likened."""

    method: str
    target: str
    headers: Headers
    body: bytes
    status: int
    answer_headers: Headers
    answer: bytes


@define
class Session:
    """
    What was said.

    Attributes:
        exchanges: In their order.
        outcomes: What the SDK made of them, as far as it is not in there.
    """

    exchanges: list[Exchange] = field(factory=list)
    outcomes: list[str] = field(factory=list)

    def add(self, request: httpx.Request, response: httpx.Response) -> None:
        """Write down what was read whole."""
        self.exchanges.append(
            Exchange(
                request.method,
                likened(request.url.raw_path.decode()),
                likened_headers(request.headers.multi_items()),
                likened_bytes(request.content),
                response.status_code,
                likened_headers(response.headers.multi_items()),
                likened_bytes(response.content),
            )
        )


class Recorder(httpx.HTTPTransport):
    """
    Sends over the network, and writes down what was sent and what came back.

    Args:
        session: Where it is written down.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Implement httpx's transport."""
        request.read()
        response = super().handle_request(request)
        response.read()
        self._session.add(request, response)
        return response


class AsyncRecorder(httpx.AsyncHTTPTransport):
    """
    Likewise, for the other colour.

    Args:
        session: Where it is written down.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Implement httpx's transport."""
        await request.aread()
        response = await super().handle_async_request(request)
        await response.aread()
        self._session.add(request, response)
        return response


async def session_of(colour: Colour, server: ServerProcess, image: bytes) -> Session:
    """Use a server as a new user, and return what was said."""
    session = Session()

    def client_with(token: str) -> AnyClient:
        if colour == "sync":
            return Client(base_url=server.url, token=token, transport=Recorder(session))
        return AsyncClient(base_url=server.url, token=token, transport=AsyncRecorder(session))

    client, stranger = client_with(server.token(uuid4())), client_with("garbage")
    try:
        task_id = await _segment(client, image, session)
        await _look(client, task_id, session)
        await _err(client, stranger, task_id, session)
    finally:
        await done(client.close())
        await done(stranger.close())
    return session


async def _segment(client: AnyClient, image: bytes, session: Session) -> UUID:
    """Go the whole way, and once more by the same key."""
    told: list[tuple[int, int]] = []
    uploaded = await done(
        client.upload(image, on_progress=lambda sent, total: told.append((sent, total)))
    )
    key = str(uuid4())
    prompt = "the red disc \u8d64"
    task: AnyTask = await done(client.segment(uploaded, prompt, idempotency_key=key))
    again: AnyTask = await done(client.segment(uploaded, prompt, idempotency_key=key))
    result: AnyResult = await done(task.wait(timeout=60))
    png = await done(result.mask.read())
    refusal = await _refusal(lambda: client.segment(uploaded, "x", idempotency_key=key))
    by_url: AnyTask = await done(client.segment(uploaded.image_url, "red"))
    result = await done(by_url.wait(timeout=60))
    session.outcomes += [f"{told} {again.replayed} {result.text_prompt} {len(png)}", refusal]
    return task.id


async def _look(client: AnyClient, task_id: UUID, session: Session) -> None:
    """Read everything that there is to read."""
    health = await done(client.health())
    account = await done(client.me())
    task: AnyTask = client.task(task_id)
    state = await done(task.refresh())
    found = await listed(client.results(page_size=1))
    none = await listed(client.results(status="error"))
    ready = await done(client.request("GET", "/health/ready"))
    await done(client.with_options(headers={"Accept-Language": "en"}).me())
    document = await done(client.request("GET", "/openapi.json"))
    session.outcomes += [
        f"{health.status} {account.credits} {account.tier} {state.status} {len(found)} {len(none)}",
        f"{ready.status} {document.status} {len(document.body)}",
    ]


async def _err(client: AnyClient, stranger: AnyClient, task_id: UUID, session: Session) -> None:
    """Be refused in every way that the SDK lets through."""
    calls: list[Callable[[], object]] = [
        stranger.me,
        lambda: stranger.upload(b"\x89PNG\r\n\x1a\n"),
        lambda: client.upload(b"no image"),
        lambda: client.result(uuid4()),
        lambda: client.segment(uuid4(), "x"),
        lambda: client.segment(task_id, ""),
        lambda: client.segment("http://169.254.169.254/latest", "x"),
        lambda: client.segment(task_id, "x" * 70_000),
        lambda: client.request("DELETE", "/api/v1/me"),
        lambda: client.request("GET", "/api/v1/results", query={"cursor": "garbage"}),
        lambda: client.request("POST", "/api/v1/segment", json=[1, {"a": None}]),
        lambda: client.request("GET", "/nothing/\u8d64"),
    ]
    session.outcomes += [await _refusal(call) for call in calls]


async def _refusal(call: Callable[[], object]) -> str:
    """Return what a call is refused with."""
    try:
        await done(call())
    except S3EdgeError as error:
        details = [(detail.field, detail.message) for detail in error.details]
        return likened(f"{type(error).__name__} {error.status} {error.message} {details}")
    return "not refused"
