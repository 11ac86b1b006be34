"""All doors give the same answers, byte for byte but for ids, times and addresses."""

import asyncio
import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from attrs import frozen

from s3edge.testing.server import ServerProcess
from tests.e2e.colours import COLOURS, Colour
from tests.e2e.conftest import Servers, SharedServers
from tests.e2e.doors import DOORS, Door
from tests.e2e.likeness import likened_bytes, likened_headers
from tests.e2e.sdk_session import Session, session_of


FIRST, *OTHERS = DOORS


SETTINGS = {"S3EDGE_RATE_LIMITS": "off", "S3EDGE_CORS_ORIGINS": "https://app.example"}

FORM = {"Content-Type": "multipart/form-data; boundary=B"}
FORM_HEAD = (
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n'
    b"Content-Type: image/png\r\n\r\n"
)
FORM_TAIL = b"\r\n--B--\r\n"


@frozen
class Asked:
    """A request, as it goes over the wire; repeated headers stay apart."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | Sequence[bytes] = b""


@frozen
class Answered:
    """What came back."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    def likened(self) -> "Answered":
        """Return the answer without what is never alike."""
        return Answered(self.status, likened_headers(self.headers), likened_bytes(self.body))


def ask(server: ServerProcess, asked: Asked) -> Answered:
    """Send one request on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.putrequest(asked.method, asked.target, skip_accept_encoding=True)
    for name, value in asked.headers:
        connection.putheader(name, value)
    if isinstance(asked.body, bytes):
        if asked.body:
            connection.putheader("Content-Length", str(len(asked.body)))
        connection.endheaders(asked.body)
    else:
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders(iter(asked.body), encode_chunked=True)
    answer = connection.getresponse()
    headers = [(name.lower(), value) for name, value in answer.getheaders()]
    body = answer.read()
    connection.close()
    # What it says is compared with its own body alone.
    length = answer.headers["Content-Length"]
    assert asked.method == "HEAD" or length is None or int(length) == len(body)
    return Answered(answer.status, headers, body)


def answers_of(server: ServerProcess, scene: bytes) -> Mapping[str, Answered]:
    """Return what a server answers to the list of requests, each with what it was."""
    signed_in = [("Authorization", f"Bearer {server.token(uuid4())}")]
    answers: dict[str, Answered] = {}

    def got(name: str, asked: Asked) -> Answered:
        answers[name] = ask(server, asked)
        return answers[name]

    form = FORM_HEAD + scene + FORM_TAIL
    sending = [*signed_in, *FORM.items()]
    uploaded = json.loads(got("upload", Asked("POST", "/api/v1/upload", sending, form)).body)
    pieces = [form[start : start + 100] for start in range(0, len(form), 100)]
    got("upload, chunked", Asked("POST", "/api/v1/upload", sending, pieces))
    got("upload, cut form", Asked("POST", "/api/v1/upload", sending, form[:-4]))
    got("upload, no form", Asked("POST", "/api/v1/upload", signed_in, form))
    got("upload, nothing", Asked("POST", "/api/v1/upload", sending))
    too_large = FORM_HEAD + scene + bytes(11 * 1024 * 1024) + FORM_TAIL
    got("upload, too large", Asked("POST", "/api/v1/upload", sending, too_large))

    body = {"image_id": uploaded["data"]["image_id"], "text_prompt": "red \u8d64"}
    keyed = [*signed_in, ("Idempotency-Key", "once")]
    segment = Asked("POST", "/api/v1/segment", keyed, json.dumps(body).encode())
    location = dict(got("segment", segment).headers)["location"]
    got("segment, again", segment)
    got("segment, other", Asked("POST", "/api/v1/segment", keyed, b'{"text_prompt": "x"}'))
    got("segment, no JSON", Asked("POST", "/api/v1/segment", signed_in, b"\xff{"))
    got("segment, long", Asked("POST", "/api/v1/segment", signed_in, b" " * 70_000))
    got("task", Asked("GET", f"{location}?wait=30", signed_in))
    task_id = location.rpartition("/")[2]
    result = json.loads(got("result", Asked("GET", f"/api/v1/results/{task_id}", signed_in)).body)
    mask = urlsplit(result["data"]["mask_image_url"])
    got("mask", Asked("GET", f"{mask.path}?{mask.query}"))
    got("mask, HEAD", Asked("HEAD", f"{mask.path}?{mask.query}"))
    got("mask, unsigned", Asked("GET", mask.path))

    for name, target in {
        "me": "/api/v1/me",
        "results": "/api/v1/results?limit=1&page=1",
        "results, odd query": "/api/v1/results?limit=%FF&page=%E9&&=",
        "results, encoded path": "/api/v1/%72esults",
        "task, nobody's": f"/api/v1/tasks/{uuid4()}",
        "task, no id": "/api/v1/tasks/%E8%B5%A4",
        "task, two parts": "/api/v1/tasks/a/b",
        "task, encoded slash": "/api/v1/tasks/a%2Fb",
        "document": "/openapi.json",
        "health": "/health",
        "ready": "/health/ready",
        "nothing": "/nothing",
        "slash at the end": "/api/v1/me/",
    }.items():
        for method in ("GET", "HEAD", "POST", "DELETE"):
            got(f"{name}, {method}", Asked(method, target, signed_in))

    origin = ("Origin", "https://app.example")
    got("cross-origin", Asked("GET", "/api/v1/me", [*signed_in, origin]))
    wants = ("Access-Control-Request-Method", "POST")
    got("preflight", Asked("OPTIONS", "/api/v1/upload", [origin, wants]))
    got("two tokens", Asked("GET", "/api/v1/me", signed_in * 2))
    got("no token", Asked("GET", "/api/v1/me"))
    got("odd token", Asked("GET", "/api/v1/me", [("Authorization", "Bearer \xe9")]))
    request_id = str(uuid4())
    given = got("own id", Asked("GET", "/health", [("X-Request-Id", request_id)]))
    assert dict(given.headers)["x-request-id"] == request_id
    return answers


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServers]:
    """Return one server a door, all with the same settings."""
    servers = Servers(tmp_path_factory.mktemp("doors"), SETTINGS)
    yield SharedServers(servers)
    servers.end()


@pytest.fixture(scope="module")
def expected(doors: SharedServers, scene: bytes) -> Mapping[str, Answered]:
    """Return what the first door answers."""
    answers = answers_of(doors.at(FIRST), scene)
    assert len(answers) > 70
    return answers


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_doors_answer_alike(
    doors: SharedServers, expected: Mapping[str, Answered], scene: bytes, other: Door
) -> None:
    """The same requests, sent to Starlette on uvicorn and to a WSGI server."""
    actual = answers_of(doors.at(other), scene)
    assert actual.keys() == expected.keys()
    for name, answer in expected.items():
        assert actual[name].likened() == answer.likened(), name


@pytest.fixture(scope="module")
def expected_session(doors: SharedServers, scene: bytes) -> Session:
    """Return what the SDK that waits sends to the first door, and gets."""
    session = asyncio.run(session_of("sync", doors.at(FIRST), scene))
    assert len(session.exchanges) > 20
    return session


@pytest.mark.parametrize(
    ("other", "by"), [(door, colour) for door in DOORS for colour in COLOURS][1:], ids=str
)
def test_the_sdk_has_the_same_talk_over_each_door(
    doors: SharedServers, expected_session: Session, scene: bytes, other: Door, by: Colour
) -> None:
    """In both colours: what is sent, what is answered, and what comes of it."""
    session = asyncio.run(session_of(by, doors.at(other), scene))
    assert session.outcomes == expected_session.outcomes
    for number, exchange in enumerate(expected_session.exchanges):
        assert session.exchanges[number] == exchange, exchange.target
    assert len(session.exchanges) == len(expected_session.exchanges)
