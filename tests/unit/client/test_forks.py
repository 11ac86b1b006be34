"""A client that a fork left in two processes: each has answers of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from uuid import UUID

import pytest

from s3edge.client import UnreadableAnswer
from s3edge.testing.scripted_api import ScriptedApi, ok
from tests.e2e.colours import COLOURS, AnyClient, Colour, refused


pytestmark = pytest.mark.anyio

CALLS = 20
"""A process."""

BEGINNING = """
import asyncio, inspect, json, multiprocessing, os, sys
from uuid import uuid4
import httpx
from s3edge.client import AsyncClient, Client, ConfigurationError

colour, url = sys.argv[1:]
new = {"sync": Client, "async": AsyncClient}[colour]

async def done(outcome):
    return await outcome if inspect.isawaitable(outcome) else outcome
"""

MANY_CALLS = """
client = new(base_url=url, token="t", max_retries=0)

async def ports():
    states = [await done(client.task(uuid4()).refresh()) for _ in range(CALLS)]
    return list({state.extra["port"] for state in states})

async def ports_and_end():
    found = await ports()
    await done(client.close())
    return found

def child(_):
    ready.wait(60)
    return asyncio.run(ports_and_end())

loop = asyncio.new_event_loop()
context = multiprocessing.get_context("fork")
ready = context.Barrier(4)
before = loop.run_until_complete(ports())
with context.Pool(3) as pool:
    theirs = pool.map_async(child, range(3), chunksize=1)
    ready.wait(60)
    mine = loop.run_until_complete(ports())
    children = theirs.get(60)
after = loop.run_until_complete(ports_and_end())
print(json.dumps([before, mine, after, *children]))
""".replace("CALLS", str(CALLS))

GIVEN_TRANSPORT = """
client = new(
    base_url=url, token="t", transport=httpx.MockTransport(lambda _: httpx.Response(200, json={}))
)

async def answer():
    try:
        return str((await done(client.request("GET", "/"))).status)
    except ConfigurationError as error:
        return error.message

def say(who):
    print(who, asyncio.run(answer()), flush=True)

def in_child(who):
    if os.fork() == 0:
        say(who)
        os._exit(0)
    os.wait()

in_child("unused:")
say("parent:")
in_child("used:")
"""

IN_PROCESS = """
from s3edge.client import S3EdgeError

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})

client = new.for_app(app, token="t")

async def answer():
    try:
        return (await done(client.request("GET", "/"))).status
    except S3EdgeError as error:
        return error.message

loop = asyncio.new_event_loop()
print(loop.run_until_complete(answer()), flush=True)
if os.fork() == 0:
    asyncio.set_event_loop(None)
    print(asyncio.run(answer()), flush=True)
    asyncio.run(done(client.close()))
    os._exit(0)
os.wait()
print(loop.run_until_complete(answer()), flush=True)
loop.run_until_complete(done(client.close()))
"""


class Tasks(BaseHTTPRequestHandler):
    """Answers each task with its own id, and the port of the connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self) -> None:
        """Answer."""
        task_id = self.path.rpartition("/")[2]
        state = {"task_id": task_id, "status": "pending", "port": self.client_address[1]}
        body = json.dumps({"success": True, "data": state}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Be silent."""


@pytest.fixture(scope="module")
def tasks() -> Iterator[str]:
    """Return the URL of a server that keeps connections open."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Tasks) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def lines_of(program: str, colour: Colour, url: str) -> list[str]:
    """Run a program in a process that may fork, and return what it printed."""
    ran = subprocess.run(
        [sys.executable, "-c", BEGINNING + program, colour, url],
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
        check=True,
    )
    return ran.stdout.splitlines()


@pytest.mark.parametrize("colour", COLOURS)
def test_a_forked_process_has_connections_of_its_own(colour: Colour, tasks: str) -> None:
    """Calls of four processes at once: each has its own answers, over a connection of its own."""
    (line,) = lines_of(MANY_CALLS, colour, tasks)
    before, parent, after, *children = json.loads(line)
    assert before == parent == after
    ports = [port for each in (parent, *children) for port in each]
    assert len(ports) == len(set(ports)) == 4


@pytest.mark.parametrize("colour", COLOURS)
def test_a_transport_belongs_to_the_process_that_uses_it(colour: Colour) -> None:
    """The client cannot make another one like it; until it is used, it is nobody's."""
    unused, parent, used = lines_of(GIVEN_TRANSPORT, colour, "http://api.test")
    assert (unused, parent) == ("unused: 200", "parent: 200")
    assert "make a client in each process" in used


@pytest.mark.parametrize("colour", COLOURS)
def test_an_application_belongs_to_the_process_that_started_it(colour: Colour) -> None:
    """A forked client neither waits for a thread that is not there nor ends its parent's."""
    before, child, after = lines_of(IN_PROCESS, colour, "")
    assert (before, after) == ("200", "200")
    assert "make a client in each process" in child


@pytest.mark.parametrize("colour", COLOURS)
async def test_another_calls_answer_is_refused(api: ScriptedApi, colour: Colour) -> None:
    """Whatever has mixed them up: nobody is shown another one's task or result."""
    client: AnyClient = api.client() if colour == "sync" else api.async_client()
    asked, other = UUID(int=1), UUID(int=2)
    api.answer(ok({"task_id": str(other), "status": "done"}), ok(result(other)))
    await refused(UnreadableAnswer, client.task(asked).refresh)
    error = await refused(UnreadableAnswer, lambda: client.result(asked))
    assert str(asked) in error.message


def result(result_id: UUID) -> dict[str, Any]:
    """Return a result, whole."""
    return {
        "id": str(result_id),
        "project_id": None,
        "source_image_url": "http://media.test/i",
        "mask_image_url": None,
        "text_prompt": "red",
        "labels": [],
        "metadata": {},
        "status": "processing",
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
    }
