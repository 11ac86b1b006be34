"""The stand-in of a GPU server keeps the contract of the inference API, and fails on demand."""

import io
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar
from uuid import uuid4

import httpx
import psutil
import psycopg
import pytest
import uvicorn
from attrs import define
from PIL import Image
from starlette.applications import Starlette

from s3edge.cli.server import bind, url_of
from s3edge.testing.standins.gpu_outcomes import SupabaseOutcomes
from s3edge.testing.standins.gpu_server import GpuServerProcess, create_app
from s3edge.testing.standins.postgres import Database, PostgresServer
from s3edge_postgres.migrations import migrations


KEY = "the-key"

SHORT_S = 0.3
"""As long as the tests wait for what never comes."""

LONG_S = 10.0

WELL_BEHAVED = {
    "latency_s": 0.0,
    "fail": [],
    "hang": 0.0,
    "silent": False,
    "garbage": False,
    "model_loaded": True,
    "write": 1.0,
    "write_late": 0.0,
    "duplicate": False,
    "seed": 0,
}


@contextmanager
def served(app: Starlette, listener: socket.socket) -> Iterator[None]:
    """Serve as the process does: by uvicorn as it comes, which hears of clients that leave."""
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", ws="none")
    )
    thread = Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


class Images(BaseHTTPRequestHandler):
    """Serves images, and takes what a GPU server puts or writes down."""

    protocol_version = "HTTP/1.1"
    files: ClassVar[dict[str, bytes]] = {}
    received: ClassVar[list[tuple[str, str, Mapping[str, str], bytes]]] = []

    def do_GET(self) -> None:
        """Answer a file, or a status that stands in the path."""
        content = self.files.get(self.path)
        status = self.path.rpartition("/")[2]
        self.answer(int(status) if status.isdecimal() else 200 if content else 404, content or b"")

    def do_PUT(self) -> None:
        """Note what is sent, as a bucket does."""
        self.note(b"")

    def do_POST(self) -> None:
        """Note what is sent, as a database function does."""
        self.note(b"true")

    def note(self, answer: bytes) -> None:
        """Keep a request."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.received.append((self.command, self.path, headers, body))
        self.answer(200, answer)

    def answer(self, status: int, content: bytes) -> None:
        """Answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def png(*, bright: bool) -> bytes:
    """Return an image whose left half is black, and whose right half may be white."""
    image = Image.new("RGB", (8, 4))
    if bright:
        image.paste("white", (4, 0, 8, 4))
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()


@pytest.fixture(scope="module")
def images() -> Iterator[str]:
    """Run a host of images; give its address."""
    Images.files = {
        "/scene": png(bright=True),
        "/dark": png(bright=False),
        "/text": b"This is no image.",
        "/huge": bytes(10 * 1024 * 1024 + 1),
    }
    with ThreadingHTTPServer(("127.0.0.1", 0), Images) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@define
class Client:
    """Calls a server as a gateway does."""

    http: httpx.Client
    images: str
    key: str = KEY

    def request(self, **changes: Any) -> dict[str, Any]:
        """Return the body of a prediction."""
        request = {
            "image_url": f"{self.images}/scene",
            "text_prompt": "the bright part",
            "user_id": str(uuid4()),
            "task_id": str(uuid4()),
        }
        return request | changes

    def predict(self, **changes: Any) -> httpx.Response:
        """Ask for a prediction."""
        return self.post("/api/v1/predict", self.request(**changes))

    def post(self, path: str, body: Any, timeout_s: float = LONG_S) -> httpx.Response:
        """Send a body, with the key."""
        return self.http.post(path, json=body, headers={"X-API-Key": self.key}, timeout=timeout_s)

    def get(self, path: str) -> httpx.Response:
        """Get something, with the key."""
        return self.http.get(path, headers={"X-API-Key": self.key})

    def control(self, **behaviour: Any) -> dict[str, Any]:
        """Change how the server behaves; return its report."""
        answer = self.http.post("/_control", json=behaviour)
        assert answer.status_code == 200, answer.text
        report: dict[str, Any] = answer.json()
        return report


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    """Run a server in this process, and return a connection to it."""
    with (
        bind("127.0.0.1", 0) as listener,
        httpx.Client(base_url=url_of(listener), trust_env=False) as http,
        served(create_app(KEY), listener),
    ):
        yield http


@pytest.fixture
def client(http: httpx.Client, images: str) -> Iterator[Client]:
    """Return a client of the server, which behaves well until a test says otherwise."""
    client = Client(http, images)
    client.control(**WELL_BEHAVED)
    yield client
    client.control(**WELL_BEHAVED)


def test_health_needs_no_key(client: Client) -> None:
    """It has the contract's fields, and says whether there is a model."""
    answer = client.http.get("/health")
    assert answer.status_code == 200
    assert set(answer.json()) == {
        "status",
        "model_loaded",
        "gpu_available",
        "gpu_name",
        "vram_used_mb",
        "vram_total_mb",
    }
    assert (answer.json()["status"], answer.json()["model_loaded"]) == ("ok", True)
    client.control(model_loaded=False)
    assert client.http.get("/health").json()["model_loaded"] is False


@pytest.mark.parametrize("key", ["", "another", "the-keY", "the-key2", "schlüssel"])
def test_a_wrong_key_is_refused(client: Client, key: str) -> None:
    """Everywhere but at health."""
    headers = {b"X-API-Key": key.encode()} if key else {}
    request = client.request()
    for method, path in (
        ("POST", "/api/v1/predict"),
        ("POST", "/api/v1/predict/batch"),
        ("GET", "/api/v1/model/info"),
    ):
        answer = client.http.request(method, path, headers=headers, json=request)
        assert answer.status_code == 401
    assert request["task_id"] not in client.control()["predict_calls"]


def test_a_prediction_is_the_contracts_message(client: Client) -> None:
    """Its mask is a PNG of the image's size, white where the image is bright, and can be fetched."""
    request = client.request()
    answer = client.post("/api/v1/predict", request)
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"task_id", "mask_url", "labels", "inference_time_ms", "confidence"}
    assert (body["task_id"], body["labels"]) == (request["task_id"], ["the bright part"])
    assert 0 <= body["confidence"] <= 1
    assert body["inference_time_ms"] >= 0
    assert body["mask_url"].endswith(f"/masks/{request['user_id']}/{request['task_id']}")
    mask = client.http.get(body["mask_url"])
    assert mask.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(mask.content)) as image:
        assert (image.mode, image.size) == ("L", (8, 4))
        assert [image.getpixel((x, 0)) for x in range(8)] == [0] * 4 + [255] * 4


def test_a_batch_has_a_result_for_each_prompt(client: Client) -> None:
    """In their order, each with a mask of its own."""
    request = client.request(prompts=["a", "b", "c"])
    body = client.post("/api/v1/predict/batch", request).json()
    assert set(body) == {"task_id", "results", "total_inference_time_ms"}
    assert [result["labels"] for result in body["results"]] == [["a"], ["b"], ["c"]]
    assert len({result["mask_url"] for result in body["results"]}) == 3
    for result in body["results"]:
        assert client.http.get(result["mask_url"]).status_code == 200


def test_the_model_is_named(client: Client) -> None:
    """With the contract's fields; 503 while there is none."""
    assert set(client.get("/api/v1/model/info").json()) == {
        "model_name",
        "model_version",
        "parameters",
        "weights_size_gb",
        "device",
        "dtype",
    }
    client.control(model_loaded=False)
    for answer in (client.get("/api/v1/model/info"), client.predict()):
        assert (answer.status_code, answer.json()["error"]) == (503, "MODEL_NOT_LOADED")


@pytest.mark.parametrize(
    "changes",
    [
        {"image_url": None},
        {"text_prompt": ""},
        {"text_prompt": "x" * 501},
        {"user_id": "somebody"},
        {"task_id": 5},
        {"prompts": []},
        {"prompts": ["x"] * 11},
    ],
    ids=str,
)
def test_a_malformed_request_is_refused(client: Client, changes: dict[str, Any]) -> None:
    """The contract says which fields there are."""
    path = "/api/v1/predict/batch" if "prompts" in changes else "/api/v1/predict"
    assert client.post(path, client.request(**changes)).status_code == 400


def test_what_is_no_json_is_refused(client: Client) -> None:
    """Nor an endless body read."""
    for content in (b"", b"{", b"\xff", b"[]", b" " * 70_000):
        answer = client.http.post(
            "/api/v1/predict", content=content, headers={"X-API-Key": client.key}
        )
        assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/absent", "/text", "/huge", "/403"])
def test_an_unusable_image_is_refused(client: Client, path: str) -> None:
    """For good, and nothing ran that could be an answer."""
    request = client.request(image_url=client.images + path)
    assert client.post("/api/v1/predict", request).status_code == 400


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/x",
        "http://192.0.2.1/x",
        "https://127.0.0.1/x",
        "file:///etc/passwd",
        "http://127.0.0.1.example.com/",
        "http://[",
        "",
    ],
)
def test_nothing_is_fetched_from_elsewhere(client: Client, url: str) -> None:
    """A stand-in has no business on the network."""
    assert client.predict(image_url=url).status_code == 400


def test_an_image_host_that_is_down_is_a_passing_fault(client: Client) -> None:
    """The gateway may try again."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        for url in (f"http://127.0.0.1:{nobody.getsockname()[1]}/x", f"{client.images}/500"):
            answer = client.predict(image_url=url)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_a_repeat_runs_nothing_twice(client: Client) -> None:
    """Whether it comes later or at the same time, it gets the first answer."""
    request = client.request()
    client.control(latency_s=0.05)
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda _: client.post("/api/v1/predict", request).content, range(8))
        )
    answers.append(client.post("/api/v1/predict", request).content)
    assert len(set(answers)) == 1
    report = client.control()
    assert report["predict_calls"][request["task_id"]] == 9
    assert report["model_runs"][request["task_id"]] == 1
    assert report["in_flight"] == 0


def test_failures_come_in_the_order_that_was_asked_for(client: Client) -> None:
    """One each, then predictions again."""
    client.control(fail=[503, 500, 429])
    assert [client.predict().status_code for _ in range(4)] == [503, 500, 429, 200]


def test_a_share_of_failures_is_repeatable(client: Client) -> None:
    """The same seed fails the same requests, whatever else is left to chance; they are counted."""
    runs = []
    before = client.control()["failed"]
    for garbage in (False, False, True):
        client.control(fail=0.5, garbage=garbage, seed=7)
        runs.append([client.predict().status_code for _ in range(20)])
    assert runs[0] == runs[1] == runs[2]
    assert set(runs[0]) == {200, 503}
    assert client.control()["failed"] - before == 3 * runs[0].count(503)


def hung(client: Client, predictions: int) -> list[bool]:
    """Return which of so many predictions, all at once in flight but sent in turn, hang."""
    hangs = []
    with ThreadPoolExecutor(predictions) as threads:
        waiting = []
        for _ in range(predictions):
            before = client.control()["hung"]
            waiting.append(threads.submit(client.predict))
            while not waiting[-1].done() and client.control()["hung"] == before:
                pass
            hangs.append(client.control()["hung"] > before)
        assert [not answer.done() for answer in waiting] == hangs
        report = client.control()
        assert report["in_flight"] == sum(hangs)
        client.control(hang=0.0)
        assert {answer.result(LONG_S).status_code for answer in waiting} == {200}
    return hangs


def test_a_share_hangs_until_it_is_told_otherwise(client: Client) -> None:
    """The same ones each time; the others are answered meanwhile, and in the end all are."""
    runs = []
    for duplicate in (False, True):
        client.control(hang=0.4, duplicate=duplicate, seed=3)
        runs.append(hung(client, 12))
    assert runs[0] == runs[1]
    assert set(runs[0]) == {True, False}
    assert client.control()["in_flight"] == 0


def test_what_hangs_ends_with_its_client(client: Client) -> None:
    """Nobody waits on behalf of one who has gone, and the model does not run."""
    client.control(hang=1.0)
    request = client.request()
    with pytest.raises(httpx.ReadTimeout):
        client.post("/api/v1/predict", request, timeout_s=SHORT_S)
    while client.control()["in_flight"]:
        pass
    report = client.control(hang=0.0)
    assert request["task_id"] in report["predict_calls"]
    assert request["task_id"] not in report["model_runs"]


def test_garbage_is_never_an_answer(client: Client) -> None:
    """It has status 200, and is of several kinds."""
    client.control(garbage=True, seed=1)
    answers = [client.predict() for _ in range(30)]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content[:15] for answer in answers}) > 2


def test_a_silent_server_answers_when_it_is_silent_no_more(client: Client) -> None:
    """Until then nobody hears anything; who gave up is not counted as waiting."""
    client.control(silent=True)
    with pytest.raises(httpx.ReadTimeout):
        client.post("/api/v1/predict", client.request(), timeout_s=SHORT_S)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.predict)
        while client.control()["in_flight"] != 1:
            assert not waiting.done()
        client.control(silent=False)
        assert waiting.result(LONG_S).status_code == 200
    assert client.control()["in_flight"] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"silnet": True},
        {"latency_s": -1},
        {"fail": 2.0},
        {"fail": [200]},
        {"hang": 1.5},
        {"write": -0.1},
        {"write_late": True},
        {"seed": "x"},
        5,
    ],
)
def test_a_misspelt_control_is_refused(client: Client, change: Any) -> None:
    """And changes nothing."""
    assert client.http.post("/_control", json=change).status_code == 400
    assert client.control()["behaviour"] == WELL_BEHAVED


@pytest.mark.parametrize("service_key", ["sb_secret_abc", "a.legacy.jwt"])
@pytest.mark.parametrize("duplicate", [False, True])
def test_outcomes_are_written_through_the_functions(
    images: str, service_key: str, duplicate: bool
) -> None:
    """First that it begins, then how it ended; an opaque key is no bearer token."""
    Images.received.clear()
    app = create_app(KEY, outcomes=SupabaseOutcomes(images + "/", service_key))
    with (
        bind("127.0.0.1", 0) as listener,
        httpx.Client(base_url=url_of(listener), trust_env=False) as http,
        served(app, listener),
    ):
        client = Client(http, images)
        client.control(duplicate=duplicate)
        request = client.request()
        answer, repeat = (client.post("/api/v1/predict", request) for _ in range(2))
    assert answer.content == repeat.content
    written = [
        (path, httpx.Response(200, content=body).json()) for _, path, _, body in Images.received
    ]
    task = {"p_task_id": request["task_id"]}
    assert written[0] == ("/rest/v1/rpc/s3edge_start_task", task)
    path, arguments = written[1]
    assert path == "/rest/v1/rpc/s3edge_complete_task"
    assert arguments == task | {
        "p_mask_image_url": answer.json()["mask_url"],
        "p_labels": ["the bright part"],
        "p_metadata": {
            "inference_time_ms": answer.json()["inference_time_ms"],
            "confidence": 1.0,
            "model_version": "1",
        },
    }
    assert written[2:] == ([written[1]] if duplicate else [])
    for _, _, headers, _ in Images.received:
        assert headers["apikey"] == service_key
        bearer = None if service_key.startswith("sb_") else f"Bearer {service_key}"
        assert headers.get("authorization") == bearer


def test_a_database_that_is_away_costs_no_answer(client: Client, images: str) -> None:
    """The gateway writes the outcome, too."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        app = create_app(KEY, outcomes=SupabaseOutcomes(url, "sb_secret_x"))
        with (
            bind("127.0.0.1", 0) as listener,
            httpx.Client(base_url=url_of(listener), trust_env=False) as http,
            served(app, listener),
        ):
            assert Client(http, images).predict().status_code == 200


@define
class Tasks:
    """The tasks of a real database."""

    database: Database
    owner: psycopg.Connection

    def reserve(self) -> str:
        """Have a new user reserve a task; return its id."""
        user_id, task_id = uuid4(), uuid4()
        with psycopg.connect(self.database.url("supabase_auth_admin")) as auth:
            auth.execute("insert into auth.users (id) values (%s)", (user_id,))
        self.owner.execute(
            "select s3edge.reserve_task(%s, %s, 'http://images.test/i', 'x', null, null, null)",
            (user_id, task_id),
        )
        return str(task_id)

    def outcome(self, task_id: str) -> tuple[str, str | None]:
        """Return a task's state and mask."""
        row = self.owner.execute(
            "select status, mask_image_url from public.segmentation_results where id = %s",
            (task_id,),
        ).fetchone()
        assert row is not None
        return row[0], row[1]


@pytest.fixture(scope="module")
def tasks(postgres: PostgresServer) -> Iterator[Tasks]:
    """Make a database with the schema in it."""
    database = postgres.create_database("gpu_outcomes")
    for migration in migrations():
        database.apply(migration.sql)
    with psycopg.connect(database.url("postgres"), autocommit=True) as owner:
        yield Tasks(database, owner)


@pytest.fixture
def writer(tasks: Tasks, images: str) -> Iterator[Client]:
    """Run a server that writes into that database, and return a client of it."""
    with (
        GpuServerProcess(database_url=tasks.database.url("postgres")) as server,
        httpx.Client(base_url=server.url, trust_env=False) as http,
    ):
        yield Client(http, images, server.api_key)


def test_outcomes_are_written_into_postgres(tasks: Tasks, writer: Client) -> None:
    """Before they are answered, if at all; said twice, the second time changes nothing."""
    writer.control(duplicate=True)
    written = tasks.reserve()
    answer = writer.predict(task_id=written)
    assert tasks.outcome(written) == ("done", answer.json()["mask_url"])
    writer.control(write=0.0)
    unwritten = tasks.reserve()
    assert writer.predict(task_id=unwritten).status_code == 200
    assert tasks.outcome(unwritten) == ("pending", None)
    report = writer.control()
    assert (report["written"], report["written_late"]) == (1, 0)


def test_outcomes_are_written_after_the_answer(tasks: Tasks, writer: Client) -> None:
    """That does not wait for the database; a repeat of the prediction writes nothing again."""
    writer.control(write_late=1.0)
    task_id = tasks.reserve()
    tasks.owner.execute("select s3edge.start_task(%s)", (task_id,))
    with tasks.owner.transaction():
        tasks.owner.execute(
            "select from public.segmentation_results where id = %s for update", (task_id,)
        )
        answer = writer.predict(task_id=task_id)
        assert answer.status_code == 200
        assert tasks.outcome(task_id) == ("processing", None)
        assert writer.control()["written"] == 0
    while writer.control()["written"] == 0:
        pass
    assert tasks.outcome(task_id) == ("done", answer.json()["mask_url"])
    assert writer.predict(task_id=task_id).content == answer.content
    report = writer.control()
    assert (report["written"], report["written_late"]) == (1, 1)


def test_both_orders_and_neither_occur(tasks: Tasks, writer: Client) -> None:
    """As often as was asked for, and the same ones each time."""
    runs = []
    for _ in range(2):
        writer.control(write=0.5, write_late=0.5, seed=5)
        run = []
        for _ in range(16):
            before = writer.control()
            task_id = tasks.reserve()
            assert writer.predict(task_id=task_id).status_code == 200
            # A task that is to be written is at least begun before it is answered.
            is_written = tasks.outcome(task_id)[0] != "pending"
            while is_written and writer.control()["written"] == before["written"]:
                pass
            assert tasks.outcome(task_id)[0] == ("done" if is_written else "pending")
            run.append((is_written, writer.control()["written_late"] - before["written_late"]))
        runs.append(run)
    assert runs[0] == runs[1]
    assert set(runs[0]) == {(False, 0), (True, 0), (True, 1)}


@pytest.mark.parametrize("write_late", [0.0, 1.0])
def test_a_postgres_that_is_away_costs_no_answer(images: str, write_late: float) -> None:
    """It is logged without the URL, and not counted as written."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"postgresql://somebody:hunter2@127.0.0.1:{nobody.getsockname()[1]}/x"
        with (
            GpuServerProcess(database_url=url) as server,
            httpx.Client(base_url=server.url, trust_env=False) as http,
        ):
            server.control(write_late=write_late)
            assert Client(http, images, server.api_key).predict().status_code == 200
            while sum("could not be called" in line for line in server.log) < 2:
                assert server.report()["written"] == 0
    assert not any("hunter2" in line or "somebody" in line for line in server.log)


def test_no_secret_is_among_the_arguments() -> None:
    """Everybody on the machine can list those."""
    secrets = ("key-1", "key-2", "postgresql://user:key-3@127.0.0.1/x")
    with GpuServerProcess(
        api_key=secrets[0], secret_access_key=secrets[1], database_url=secrets[2]
    ) as server:
        arguments = psutil.Process(server.pid).cmdline()
    assert "--port" in " ".join(arguments)
    assert not any(secret in f"{arguments} {server!r}" for secret in secrets)


@pytest.mark.parametrize(
    ("server", "advice"),
    [
        (GpuServerProcess(api_key=""), "set GPU_SERVER_API_KEY"),
        (
            GpuServerProcess(supabase_url="http://127.0.0.1:1", database_url="postgresql://x"),
            "leave out",
        ),
    ],
    ids=["no key", "two databases"],
)
def test_a_process_needs_a_key_and_one_database(server: GpuServerProcess, advice: str) -> None:
    """Or it says what to do."""
    with pytest.raises(RuntimeError, match=advice):
        server.start()


def test_the_process_keeps_its_address_over_a_crash(images: str) -> None:
    """Killed and started again, it answers there and remembers nothing."""
    with GpuServerProcess(api_key="-dashed-key") as server:
        url, pid = server.url, server.pid
        with httpx.Client(base_url=url, trust_env=False) as http:
            client = Client(http, images, server.api_key)
            assert client.predict().status_code == 200
            assert len(server.report()["model_runs"]) == 1
        server.kill()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health", trust_env=False)
        server.start()
        assert (server.url, server.report()["model_runs"]) == (url, {})
        assert server.pid != pid
        assert server.control(fail=[418])["behaviour"]["fail"] == [418]
        process = server.process
        assert server.api_key not in repr(server)
    assert process is not None
    assert process.returncode == 0
    server.stop()


def test_a_process_that_cannot_start_says_why() -> None:
    """What it printed is in the error."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = GpuServerProcess(port=taken.getsockname()[1])
        with pytest.raises(RuntimeError, match="in use"):
            server.start()


def test_masks_go_to_a_bucket(images: str) -> None:
    """As a PNG under the task's key; the answer names it by the bucket's address."""
    Images.received.clear()
    with (
        GpuServerProcess(
            storage=f"{images}/bucket", access_key_id="AKID", secret_access_key="secret"
        ) as server,
        httpx.Client(base_url=server.url, trust_env=False) as http,
    ):
        client = Client(http, images, server.api_key)
        request = client.request()
        answer = client.post("/api/v1/predict", request)
    key = f"masks/{request['user_id']}/{request['task_id']}"
    assert answer.json()["mask_url"] == f"{images}/bucket/{key}"
    method, path, headers, body = Images.received[0]
    assert (method, path) == ("PUT", f"/bucket/{key}")
    assert headers["content-type"] == "image/png"
    assert "AWS4-HMAC-SHA256 Credential=AKID/" in headers["authorization"]
    assert body.startswith(b"\x89PNG")


def test_a_bucket_that_is_away_is_a_passing_fault(images: str) -> None:
    """The gateway may try again, and the mask is stored then."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        storage = f"http://127.0.0.1:{nobody.getsockname()[1]}/bucket"
        with (
            GpuServerProcess(
                storage=storage, access_key_id="AKID", secret_access_key="secret"
            ) as server,
            httpx.Client(base_url=server.url, trust_env=False) as http,
        ):
            answer = Client(http, images, server.api_key).predict()
    assert (answer.status_code, answer.json()["error"]) == (503, "STORAGE_UNREACHABLE")
