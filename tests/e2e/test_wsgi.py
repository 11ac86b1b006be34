"""The WSGI door on gunicorn: reloads under load, orderly stops, and memory that stays flat."""

import itertools
import os
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
from attrs import define, field

from s3edge.testing.wsgi_server import (
    CORES,
    HOOKS,
    GunicornProcess,
    WaitressProcess,
    WsgiServerProcess,
)
from tests.waiting import eventually


MEBIBYTE = 1024 * 1024

WITHIN_S = 60

CREDITS = 100_000

MAX_WAITS = 4
"""As the served module has it."""

RELOADS = 3

TASKS_AT_END = 12

UPLOADS = 8
UPLOAD_BYTES = 10 * MEBIBYTE


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[GunicornProcess]:
    """Return two processes with 16 threads in all, not started."""
    settings = {"S3EDGE_RATE_LIMITS": "off", "S3EDGE_INITIAL_CREDITS": str(CREDITS)}
    server = GunicornProcess(tmp_path, settings, workers=2, threads=8)
    yield server
    if server.is_running():
        server.kill()
    server.release()


def upload(client: httpx.Client, image: bytes) -> dict[str, str]:
    """Upload an image, and return what is said of it."""
    answer = client.post("/api/v1/upload", files={"file": ("x.png", image, "image/png")})
    assert answer.status_code == 200, answer.text
    data: dict[str, str] = answer.json()["data"]
    return data


@define
class Load:
    """
    What one client sends, one request after another, until it is told to stop.

    Attributes:
        url: Of the server.
        headers: Of the user.
        image: What is uploaded.
        image_id: What is segmented.
        stop: Tells to stop.
        statuses: Of the answers.
        accepted: The tasks that were accepted.
        hung_up: How often the server hung up before there was a byte of an answer.
    """

    url: str
    headers: httpx.Headers
    image: bytes
    image_id: str
    stop: threading.Event
    statuses: list[int] = field(factory=list)
    accepted: list[str] = field(factory=list)
    hung_up: int = 0

    def run(self) -> None:
        """Send."""
        kinds = itertools.cycle(["me", "upload", "segment", "results", "segment"])
        with httpx.Client(base_url=self.url, headers=self.headers, timeout=WITHIN_S) as client:
            while not self.stop.is_set():
                kind = next(kinds)
                try:
                    answer = self._send(client, kind)
                except httpx.RemoteProtocolError as error:
                    if "without sending a response" not in str(error):
                        raise
                    self.hung_up += 1
                    continue
                self.statuses.append(answer.status_code)
                if kind == "segment":
                    self.accepted.append(answer.json()["data"]["task_id"])

    def _send(self, client: httpx.Client, kind: str) -> httpx.Response:
        if kind == "upload":
            return client.post("/api/v1/upload", files={"file": ("x.png", self.image, "image/png")})
        if kind == "segment":
            body = {"image_id": self.image_id, "text_prompt": "red"}
            return client.post("/api/v1/segment", json=body)
        return client.get(f"/api/v1/{kind}")


def test_reloads_under_load_drop_no_request(gunicorn: GunicornProcess, scene: bytes) -> None:
    """
    Three times all processes are replaced (``kill -HUP``), and what was sent is answered.

    But for this: a process that ends hangs up on connections that have been idle, and a request may be
    on its way there. It was not served, which is why a client may send it again. Charges and tasks agree
    with the answers in the end.
    """
    gunicorn.start()
    master = psutil.Process(gunicorn.pid)
    with gunicorn.client() as client:
        image_id = upload(client, scene)["image_id"]
        headers = client.headers
    stop = threading.Event()
    loads = [Load(gunicorn.url, headers, scene, image_id, stop) for _ in range(16)]

    def wait_for_answers(more: int) -> None:
        """Wait until there are so many more."""
        wanted = more + sum(len(load.statuses) for load in loads)
        eventually(lambda: sum(len(load.statuses) for load in loads) >= wanted)

    with ThreadPoolExecutor(len(loads)) as threads:
        running = [threads.submit(load.run) for load in loads]
        try:
            for _ in range(RELOADS):
                wait_for_answers(200)
                old = master.children()
                assert len(old) == gunicorn.workers
                master.send_signal(signal.SIGHUP)
                _, alive = psutil.wait_procs(old, timeout=WITHIN_S)
                assert alive == []
            wait_for_answers(200)
        finally:
            stop.set()
        for ended in running:
            ended.result(timeout=WITHIN_S)
    assert {status for load in loads for status in load.statuses} == {200, 202}
    assert sum(load.hung_up for load in loads) <= RELOADS * len(loads)
    accepted = [task_id for load in loads for task_id in load.accepted]
    with httpx.Client(base_url=gunicorn.url, headers=headers, timeout=WITHIN_S) as client:
        assert client.get("/api/v1/me").json()["data"]["credits"] == CREDITS - len(accepted)
        assert client.get("/api/v1/results").json()["data"]["total"] == len(accepted)
    assert len(set(accepted)) == len(accepted)
    assert gunicorn.stop() == 0
    assert gunicorn.run("reconcile").returncode == 0


def test_each_process_keeps_to_a_core_of_its_own(tmp_path: Path) -> None:
    """So the documentation advises; one that takes a dead one's place takes its core, too."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    server = GunicornProcess(tmp_path, {}, workers=len(cores), hooks=HOOKS + CORES)

    def kept_to() -> list[list[int]]:
        """Return the cores of each process that serves; none of one that just begins or ends."""
        found = []
        for worker in psutil.Process(server.pid).children():
            with suppress(psutil.NoSuchProcess):
                found.append(worker.cpu_affinity() or [])
        return sorted(found)

    try:
        server.start()
        eventually(lambda: kept_to() == [[core] for core in cores])
        first = psutil.Process(server.pid).children()[0]
        first.kill()
        eventually(lambda: first not in psutil.Process(server.pid).children())
        eventually(lambda: kept_to() == [[core] for core in cores])
    finally:
        server.end()


def test_a_stop_answers_long_polls(gunicorn: GunicornProcess, scene: bytes) -> None:
    """With the documented hooks nobody waits for them; one more than may wait was refused before."""
    gunicorn.workers = 1
    with ExitStack() as stack:
        # A GPU server that takes a task and says nothing.
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        gunicorn.settings = {
            **gunicorn.settings,
            "S3EDGE_BACKEND": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "API_SECRET_KEY": "key",
            "S3EDGE_GRACE_S": "0.5",
        }
        gunicorn.start()
        client = stack.enter_context(gunicorn.client())
        threads = stack.enter_context(ThreadPoolExecutor(MAX_WAITS + 1))
        body = {"image_id": upload(client, scene)["image_id"], "text_prompt": "red"}
        task = client.post("/api/v1/segment", json=body).json()["data"]["task_id"]
        path = f"/api/v1/tasks/{task}"
        polls = [
            threads.submit(client.get, path, params={"wait": 30}) for _ in range(MAX_WAITS + 1)
        ]
        first, waiting = wait(polls, timeout=WITHIN_S, return_when=FIRST_COMPLETED)
        assert [poll.result().status_code for poll in first] == [503]
        assert gunicorn.stop() == 0
        answers = [poll.result(timeout=WITHIN_S) for poll in waiting]
        assert [answer.status_code for answer in answers] == [200] * MAX_WAITS
    assert "Traceback" not in gunicorn.log.read_text()


@pytest.mark.parametrize(
    "start", [partial(GunicornProcess, hooks=""), WaitressProcess], ids=["gunicorn", "waitress"]
)
def test_what_runs_ends_in_order_at_the_end_of_a_process(
    start: Callable[[Path, dict[str, str]], WsgiServerProcess], tmp_path: Path, scene: bytes
) -> None:
    """Without any hook the gateway drains when the interpreter ends; no task comes to harm by that."""
    settings = {"S3EDGE_RATE_LIMITS": "off", "S3EDGE_INITIAL_CREDITS": str(CREDITS)}
    server = start(tmp_path, settings)
    try:
        server.start()
        with server.client() as client:
            body = {"image_id": upload(client, scene)["image_id"], "text_prompt": "red"}
            for _ in range(TASKS_AT_END):
                assert client.post("/api/v1/segment", json=body).status_code == 202
        assert server.stop() == 0
        log = server.log.read_text()
        assert "Traceback" not in log
        assert "left to recovery" not in log
        assert server.run("reconcile").returncode == 0
    finally:
        if server.is_running():
            server.kill()
        server.release()
    with closing(sqlite3.connect(tmp_path / "data" / "s3edge.db")) as database:
        found = dict(
            database.execute("select status, count(*) from segmentation_results group by 1")
        )
    assert set(found) <= {"pending", "processing", "done"}
    assert sum(found.values()) == TASKS_AT_END


def test_memory_stays_flat_both_ways(gunicorn: GunicornProcess, scene: bytes) -> None:
    """Eight uploads of 10 MiB at once, then their downloads: they are not held whole."""
    gunicorn.workers = 1
    gunicorn.start()
    worker = psutil.Process(gunicorn.pid).children()[0]
    image = scene + bytes(UPLOAD_BYTES - len(scene))
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, worker.memory_info().rss)

    with gunicorn.client() as client, ThreadPoolExecutor(UPLOADS + 1) as threads:
        upload(client, scene)
        before = worker.memory_info().rss
        watching = threads.submit(watch)
        try:
            uploaded = list(threads.map(lambda _: upload(client, image), range(UPLOADS)))
            sizes = list(threads.map(lambda it: length_of(it["image_url"]), uploaded))
        finally:
            done.set()
        watching.result(timeout=WITHIN_S)
    assert sizes == [UPLOAD_BYTES] * UPLOADS
    # What threads allocate and what is imported by then is about 40 MiB, whatever the size of a body.
    assert peak - before < UPLOADS * UPLOAD_BYTES * 3 / 4


def length_of(url: str) -> int:
    """Return how much is streamed from an address, without keeping it."""
    with httpx.stream("GET", url, timeout=WITHIN_S) as answer:
        return sum(len(piece) for piece in answer.iter_bytes())
