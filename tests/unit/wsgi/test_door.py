"""What goes through the door and back, as PEP 3333 has it."""

import io
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from itertools import islice
from threading import Event
from typing import Any
from wsgiref.validate import validator

import pytest
from attrs import define, evolve

from s3edge.rules.images import MAX_IMAGE_BYTES
from s3edge.testing import MemoryDeployment
from s3edge.testing.contracts.door import PNG
from s3edge.web.app import REQUEST_ID, WebApp
from s3edge_wsgi import create_app
from s3edge_wsgi.exchange import CHUNK_BYTES, DISCARDED_BYTES


FORM = {"CONTENT_TYPE": "multipart/form-data; boundary=B"}
HEAD = (
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n'
    b"Content-Type: image/png\r\n\r\n"
)
UPLOAD = HEAD + PNG + b"\r\n--B--\r\n"


@define
class Source:
    """
    A body that a client sends without an end.

    Attributes:
        beginning: How it begins.
        sent: How many bytes of it were read.
    """

    beginning: bytes = b""
    sent: int = 0

    def read(self, size: int) -> bytes:
        """Return as many bytes as are asked for."""
        piece = self.beginning[self.sent : self.sent + size].ljust(size, b"\0")
        self.sent += size
        return piece


class Broken:
    """A body that the server cannot read on."""

    def __init__(self) -> None:
        self._pieces = [UPLOAD[:100]]

    def read(self, size: int) -> bytes:
        """Return the beginning, then fail."""
        if self._pieces:
            return self._pieces.pop()
        raise ConnectionResetError


class Strict:
    """A body of a server that would wait for ever behind its end."""

    def __init__(self, content: bytes) -> None:
        self._left = content

    def read(self, size: int) -> bytes:
        """Return what there is; fail where a server would wait."""
        assert size <= len(self._left)
        piece, self._left = self._left[:size], self._left[size:]
        return piece


def test_what_cannot_be_served_is_refused_at_once(deployment: MemoryDeployment) -> None:
    """And not by each request."""
    with pytest.raises(TypeError, match=r"as deployment\.web is"):
        create_app(deployment)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_waits"):
        create_app(deployment.web, max_waits=-1)


def test_what_is_sent_is_valid_wsgi(server: Any) -> None:
    """The standard library's validator has no complaint: statuses, headers, bodies, ``close``."""
    valid = evolve(server, app=validator(server.app))
    for method, path, body, status in (
        ("GET", "/health", b"", "200 OK"),
        ("HEAD", "/openapi.json", b"", "200 OK"),
        ("GET", "/api/v1/me", b"", "200 OK"),
        ("POST", "/api/v1/segment", b"{}", "400 Bad Request"),
        ("PUT", "/api/v1/me", b"x", "405 Method Not Allowed"),
        ("GET", "/nothing", b"", "404 Not Found"),
    ):
        assert valid.ask(method, path, body).status == status
    image = json.loads(valid.ask("POST", "/api/v1/upload", UPLOAD, **FORM).body)["data"]
    path, _, query = image["image_url"].removeprefix("http://testserver").partition("?")
    assert valid.ask("GET", path, QUERY_STRING=query).body == PNG


def test_native_strings_are_decoded(server: Any) -> None:
    """PEP 3333 hands over bytes as latin-1; the prefix comes back in ``Location``, quoted."""
    image = json.loads(server.ask("POST", "/api/v1/upload", UPLOAD, **FORM).body)["data"]
    body = json.dumps({"image_id": image["image_id"], "text_prompt": "red"}).encode()
    prefix = "/\u8d64".encode().decode("latin-1")
    accepted = server.ask("POST", "/api/v1/segment", body, SCRIPT_NAME=prefix)
    assert accepted.headers["location"].startswith("/%E8%B5%A4/api/v1/tasks/")


def test_a_body_is_never_read_beyond_its_length(server: Any) -> None:
    """Without ``wsgi.input_terminated`` a server may wait there for the next request."""
    length = {"CONTENT_LENGTH": str(len(UPLOAD))}
    answer = server.ask("POST", "/api/v1/upload", Strict(UPLOAD), **length, **FORM)
    assert answer.status == "200 OK"


@pytest.mark.parametrize("length", [{}, {"CONTENT_LENGTH": ""}, {"CONTENT_LENGTH": "-5"}])
def test_a_body_whose_end_nobody_knows_is_refused(server: Any, length: dict[str, str]) -> None:
    """No length, and a server that does not end the body: 400 in the envelope, and nothing is read."""
    source = Source()
    answer = server.ask("POST", "/api/v1/segment", source, **length)
    assert answer.status == "400 Bad Request"
    assert json.loads(answer.body)["error"]["details"][0]["field"] == "Content-Length"
    assert source.sent == 0


def test_a_terminated_body_needs_no_length(server: Any) -> None:
    """A chunked body is read to its end where the server says that it has one."""
    terminated = {"wsgi.input_terminated": True}
    answer = server.ask("POST", "/api/v1/upload", io.BytesIO(UPLOAD), **terminated, **FORM)
    assert answer.status == "200 OK"


@pytest.mark.parametrize("terminated", [True, False])
def test_a_body_that_ends_early_is_no_upload(
    server: Any, deployment: MemoryDeployment, terminated: bool
) -> None:
    """Not even when all that is missing is behind the form's end."""
    environ = {"CONTENT_LENGTH": str(len(UPLOAD) + 1), "wsgi.input_terminated": terminated}
    answer = server.ask("POST", "/api/v1/upload", UPLOAD, **environ, **FORM)
    assert answer.status == "400 Bad Request"
    assert deployment.storage.keys() == []


@pytest.mark.parametrize("length", [{"CONTENT_LENGTH": str(len(UPLOAD))}, {}])
def test_a_body_that_cannot_be_read_is_no_upload(
    server: Any, deployment: MemoryDeployment, length: dict[str, str]
) -> None:
    """Whatever the server raises: with a length, and chunked."""
    environ = {"wsgi.input_terminated": True, **length}
    answer = server.ask("POST", "/api/v1/upload", Broken(), **environ, **FORM)
    assert answer.status == "400 Bad Request"
    assert deployment.storage.keys() == []


def test_nothing_is_read_that_nobody_asked_for(server: Any) -> None:
    """Who has no token is answered before the body comes; what they send then is passed over."""
    source = Source()
    environ = {"CONTENT_LENGTH": str(2 * CHUNK_BYTES), "HTTP_AUTHORIZATION": ""}
    started = server.start("POST", "/api/v1/upload", source, **environ, **FORM)
    assert started.status == "401 Unauthorized"
    assert source.sent == 0
    started.body.close()
    assert source.sent == 2 * CHUNK_BYTES


def test_a_body_that_is_held_back_is_not_waited_for(server: Any) -> None:
    """Who asked whether to send it (``Expect``), and was refused, does not send it."""
    source = Source()
    environ = {"CONTENT_LENGTH": "9", "HTTP_AUTHORIZATION": "", "HTTP_EXPECT": "100-continue"}
    assert server.ask("POST", "/api/v1/upload", source, **environ).status == "401 Unauthorized"
    assert source.sent == 0


def test_an_interrupted_thread_leaves_its_place(
    server: Any, web: WebApp, deployment: MemoryDeployment
) -> None:
    """Some servers raise in a thread that takes too long: nothing is stored, and nobody waits for it."""

    class Interrupted:
        def read(self, size: int) -> bytes:
            raise SystemExit

    environ = {"CONTENT_LENGTH": str(len(UPLOAD))}
    with pytest.raises(SystemExit):
        server.start("POST", "/api/v1/upload", Interrupted(), **environ, **FORM)
    eventually(lambda: web._admission.serving == 0, server)
    assert deployment.storage.keys() == []


def test_a_head_that_the_server_refuses_ends_the_request(
    server: Any, web: WebApp, endless: Any
) -> None:
    """It never gets the body, so it cannot close it."""

    def refusing(environ: Any, start_response: Any) -> Any:
        def refuse(status: str, headers: Any) -> Any:
            raise ValueError(status)

        return server.app(environ, refuse)

    with pytest.raises(ValueError, match="200 OK"):
        evolve(server, app=refusing).start("GET", "/endless")
    eventually(lambda: web._admission.serving == 0, server)
    assert endless.made == 0


def test_an_endless_body_is_refused_where_the_limit_is_passed(server: Any) -> None:
    """The answer comes then; and what the client sends on is passed over for a while, not for ever."""
    source = Source(HEAD + PNG)
    environ = {"wsgi.input_terminated": True}
    started = server.start("POST", "/api/v1/upload", source, **environ, **FORM)
    assert started.status.startswith("413")
    answered_at = source.sent
    assert answered_at <= MAX_IMAGE_BYTES + 2 * CHUNK_BYTES
    started.body.close()
    assert source.sent == answered_at + DISCARDED_BYTES


def test_a_stream_is_made_as_it_is_taken(server: Any, web: WebApp, endless: Any) -> None:
    """One chunk ahead and no more; it has a place until the server takes no more of it."""
    started = server.start("GET", "/endless")
    assert web._admission.serving == 1
    assert list(islice(started.body, 10)) == [b"chunk"] * 10
    assert endless.made <= 12
    started.body.close()
    eventually(lambda: endless.is_closed and web._admission.serving == 0, server)


def test_a_stream_is_not_begun_for_a_head(server: Any, endless: Any) -> None:
    """``HEAD`` of what has no end is answered, too."""
    assert server.ask("HEAD", "/endless").body == b""
    assert endless.made == 0


def test_a_stream_that_breaks_does_not_look_whole(server: Any) -> None:
    """The server hears of it, and breaks the connection."""
    started = server.start("GET", "/broken")
    taken = iter(started.body)
    assert next(taken) == b"first"
    with pytest.raises(OSError, match="the disk is gone"):
        next(taken)
    started.body.close()


def test_the_context_of_the_thread_comes_along(server: Any, caplog: Any) -> None:
    """What a host has in context variables is there, and every line of a request's log has its id."""
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
    seen: list[tuple[str, str]] = []

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((tenant.get(), REQUEST_ID.get()))

    tenant.set("somebody")
    log = logging.getLogger("s3edge.access")
    log.addHandler(watch := Watch())
    try:
        with caplog.at_level(logging.INFO, "s3edge.access"):
            answer = server.ask("GET", "/health")
    finally:
        log.removeHandler(watch)
    assert seen == [("somebody", answer.headers["x-request-id"])]
    assert REQUEST_ID.get() == "-"


def test_few_threads_wait(server: Any) -> None:
    """Of two long polls, with room for one, one is refused; told to stop, the other is answered."""
    image = json.loads(server.ask("POST", "/api/v1/upload", UPLOAD, **FORM).body)["data"]
    body = json.dumps({"image_id": image["image_id"], "text_prompt": "red"}).encode()
    refused = Event()

    def poll(path: str) -> str:
        answer = server.ask("GET", path, QUERY_STRING="wait=30")
        if answer.status.startswith("503"):
            refused.set()
            server.app.stop_waiting()
        return str(answer.status)

    with ThreadPoolExecutor(2) as threads:
        task = server.ask("POST", "/api/v1/segment", body).headers["location"]
        statuses = list(threads.map(poll, [task, task]))
    assert refused.is_set()
    assert sorted(statuses) == ["200 OK", "503 Service Unavailable"]


def eventually(condition: Callable[[], bool], server: Any) -> None:
    """Let the loop go on until something is so; each request is a turn of it."""
    for _ in range(1000):
        if condition():
            return
        server.ask("GET", "/health")
    pytest.fail("it never came to be so")
