"""A server that is asked to stop does so well."""

import os
import signal
import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import psutil
import pytest

from s3edge.testing.server import ServerProcess, StartServer
from s3edge.testing.standins.gpu_process import GpuServerProcess
from tests.waiting import eventually, wait_until_refused


WITHIN_S = 30.0
"""Bounds what a test waits for; nothing is measured."""

HEAD = (
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n'
    b"Content-Type: image/png\r\n\r\n"
)
TAIL = b"\r\n--B--\r\n"


def test_a_long_poll_does_not_hold_a_stop(start_server: StartServer, scene: bytes) -> None:
    """SIGTERM answers the poll at once with the task as it stands, and the exit status is 0."""
    server = start_server(S3EDGE_RATE_LIMITS="off", S3EDGE_DISPATCH_CONCURRENCY="1")
    with server.client() as client:
        image_id = client.post(
            "/api/v1/upload", files={"file": ("scene.png", scene, "image/png")}
        ).json()["data"]["image_id"]
        tasks = [
            client.post(
                "/api/v1/segment", json={"image_id": image_id, "text_prompt": f"red {number}"}
            ).json()["data"]["task_id"]
            for number in range(40)
        ]
        answers: list[httpx.Response] = []

        def poll() -> None:
            answers.append(client.get(f"/api/v1/tasks/{tasks[-1]}", params={"wait": 30}))

        waiting = threading.Thread(target=poll)
        waiting.start()
        # Answered only when the server has the poll too: requests of one connection come in order.
        client.get("/health")
        assert server.stop() == 0
        waiting.join(timeout=10)
        assert [answer.status_code for answer in answers] == [200]
    assert server.run("reconcile").returncode == 0


def test_waiting_tasks_are_let_go_on_a_stop(start_server: StartServer, scene: bytes) -> None:
    """What a stopped server had not begun is done by the next one without waiting for leases."""
    server = start_server(S3EDGE_RATE_LIMITS="off", S3EDGE_DISPATCH_CONCURRENCY="1")
    user_id = uuid4()
    with server.client(user_id) as client:
        image_id = client.post(
            "/api/v1/upload", files={"file": ("scene.png", scene, "image/png")}
        ).json()["data"]["image_id"]
        body = {"image_id": image_id, "text_prompt": "red"}
        tasks = [
            client.post("/api/v1/segment", json=body).json()["data"]["task_id"] for _ in range(20)
        ]
    assert server.stop() == 0
    server.start()
    with server.client(user_id) as client:
        for task_id in tasks:
            task = client.get(f"/api/v1/tasks/{task_id}", params={"wait": 30}).json()["data"]
            assert task["status"] == "done", task
        mask_url = client.get(f"/api/v1/results/{tasks[0]}").json()["data"]["mask_image_url"]
        # The first server had another port; its objects are still found, at the new address.
        assert mask_url.startswith(server.url)
        assert httpx.get(mask_url).status_code == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_upload_that_is_under_way_is_finished(
    start_server: StartServer, scene: bytes, workers: str
) -> None:
    """New connections are refused, and the half that is missing is still taken."""
    server = start_server("--workers", workers, S3EDGE_RATE_LIMITS="off")
    body = HEAD + scene + TAIL
    with server.client() as client, server.connect() as peer:
        peer.sendall(
            b"POST /api/v1/upload HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            b"Content-Type: multipart/form-data; boundary=B\r\n"
            b"Authorization: %b\r\nContent-Length: %d\r\n\r\n"
            % (client.headers["Authorization"].encode(), len(body))
        )
        # Asked for when it is read: the upload has begun.
        assert peer.recv(65_536).startswith(b"HTTP/1.1 100")
        peer.sendall(body[:-1])
        server.ask_to_stop()
        wait_until_refused(server)
        peer.sendall(body[-1:])
        answer = read_to_end(peer)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer
    assert server.wait() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_idle_connections_do_not_hold_a_stop(start_server: StartServer, workers: str) -> None:
    """Neither those that had an answer nor those that never asked are waited for."""
    server = start_server("--workers", workers, S3EDGE_RATE_LIMITS="off")
    with ExitStack() as stack:
        idle = [stack.enter_context(server.connect()) for _ in range(20)]
        for peer in idle[:10]:
            peer.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert peer.recv(65_536).startswith(b"HTTP/1.1 200")
        assert server.stop() == 0
        # uvicorn's word for connections that held the stop for all the time that open requests have.
        assert "timeout graceful shutdown exceeded" not in server.log.read_text()
        assert [read_to_end(peer) for peer in idle[10:]] == [b""] * 10


def test_a_request_that_is_on_its_way_is_answered(start_server: StartServer) -> None:
    """Sent after the signal on a connection that was idle, it is served, and told to be the last."""
    server = start_server(S3EDGE_RATE_LIMITS="off")
    with server.connect() as fresh, server.connect() as used:
        used.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        # Head and body may come apart; the envelope ends with two braces.
        first = b""
        while not first.endswith(b"}}"):
            first += used.recv(65_536)
        assert first.startswith(b"HTTP/1.1 200")
        server.ask_to_stop()
        wait_until_refused(server)
        for peer in (fresh, used):
            peer.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        for peer in (fresh, used):
            answer = read_to_end(peer)
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"connection: close" in answer
    assert server.wait() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_under_load_drops_no_request(
    start_server: StartServer, scene: bytes, workers: str
) -> None:
    """
    Every request on a connection that is in use is answered, until an answer says that it is the last.

    What was answered is in the books.
    """
    server = start_server(
        "--workers", workers, S3EDGE_RATE_LIMITS="off", S3EDGE_INITIAL_CREDITS="9999"
    )
    with server.client() as client:
        image_id = client.post(
            "/api/v1/upload", files={"file": ("scene.png", scene, "image/png")}
        ).json()["data"]["image_id"]
        headers = client.headers
    answers: list[httpx.Response] = []
    dropped: list[str] = []

    def load() -> None:
        body = {"image_id": image_id, "text_prompt": "red"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=60) as mine:
            try:
                while True:
                    answers.append(mine.post("/api/v1/segment", json=body))
                    if answers[-1].headers.get("Connection") == "close":
                        return
            except httpx.HTTPError as error:
                dropped.append(repr(error))

    loads = [threading.Thread(target=load) for _ in range(4)]
    for thread in loads:
        thread.start()
    eventually(lambda: len(answers) > 100)
    server.ask_to_stop()
    assert server.wait() == 0
    for thread in loads:
        thread.join(timeout=30)
    assert dropped == []
    assert {answer.status_code for answer in answers} == {202}
    server.arguments = ()
    server.start()
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        assert client.get("/api/v1/me").json()["data"]["credits"] == 9999 - len(answers)
    assert server.stop() == 0
    assert server.run("reconcile").returncode == 0


def test_what_the_model_works_on_is_finished(start_server: StartServer, scene: bytes) -> None:
    """The answer that comes after the signal is recorded; nobody asks the model again."""
    with GpuServerProcess() as gpu:
        server = start_server(
            S3EDGE_RATE_LIMITS="off", S3EDGE_BACKEND=gpu.url, API_SECRET_KEY=gpu.api_key
        )
        user_id = uuid4()
        task_id = task_at_work(server, user_id, gpu, scene)
        server.ask_to_stop()
        wait_until_refused(server)
        gpu.control(silent=False, fail=[400])
        assert server.wait() == 0
        server.start()
        with server.client(user_id) as client:
            task = client.get(f"/api/v1/tasks/{task_id}").json()["data"]
        assert task["status"] == "error"
        assert gpu.report()["predict_calls"] == {task_id: 1}
    assert server.stop() == 0
    assert server.run("reconcile").returncode == 0


def test_what_the_model_does_not_finish_is_let_go(start_server: StartServer, scene: bytes) -> None:
    """After the grace the server ends all the same, with status 0, and the next one does the task."""
    with GpuServerProcess() as gpu:
        server = start_server(
            S3EDGE_RATE_LIMITS="off", S3EDGE_BACKEND=gpu.url, API_SECRET_KEY=gpu.api_key
        )
        user_id = uuid4()
        task_id = task_at_work(server, user_id, gpu, scene)
        assert server.stop() == 0
        gpu.control(silent=False)
        server.start()
        with server.client(user_id) as client:
            task = client.get(f"/api/v1/tasks/{task_id}", params={"wait": 30}).json()["data"]
        assert task["status"] == "done"
    assert server.stop() == 0
    assert server.run("reconcile").returncode == 0


def test_workers_do_not_outlive_their_supervisor(start_server: StartServer) -> None:
    """Killed with -9 it can tell them nothing; they notice, and stop."""
    server = start_server("--workers", "2", S3EDGE_RATE_LIMITS="off")
    children = psutil.Process(server.pid).children(recursive=True)
    assert len(children) >= 2
    with server.connect() as peer:
        os.kill(server.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(children, timeout=WITHIN_S)
        for child in alive:
            child.kill()
        assert alive == []
        # In good order: an idle connection was closed, not reset.
        assert peer.recv(1) == b""
    assert server.wait() == -signal.SIGKILL
    assert "Application shutdown complete" in server.log.read_text()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_as_soon_as_it_serves_is_a_good_end(tmp_path: Path, workers: str) -> None:
    """Whoever reads the announcement may ask it to stop in the same moment."""
    server = ServerProcess(tmp_path, {}, ("--workers", workers))
    for _ in range(3):
        server.url = server._start()
        assert server.stop() == 0


def test_a_worker_that_is_silent_for_a_while_is_not_killed(start_server: StartServer) -> None:
    """A machine that is busy is no reason to begin anew; uvicorn alone would wait for 5 seconds."""
    server = start_server("--workers", "2", S3EDGE_RATE_LIMITS="off")
    silent, *others = serving_processes(server)
    assert others
    silent.suspend()
    try:
        with pytest.raises(psutil.TimeoutExpired):
            silent.wait(timeout=8)
    finally:
        silent.resume()
    assert {process.pid for process in serving_processes(server)} == {
        process.pid for process in (silent, *others)
    }
    assert server.stop() == 0


def serving_processes(server: ServerProcess) -> list[psutil.Process]:
    """Return the workers of a server."""
    return [
        process
        for process in psutil.Process(server.pid).children()
        if "spawn_main" in " ".join(process.cmdline())
    ]


def task_at_work(server: ServerProcess, user_id: UUID, gpu: GpuServerProcess, scene: bytes) -> str:
    """Return a task that a silent GPU server has and does not answer."""
    gpu.control(silent=True)
    with server.client(user_id) as client:
        image_id = client.post(
            "/api/v1/upload", files={"file": ("scene.png", scene, "image/png")}
        ).json()["data"]["image_id"]
        body = {"image_id": image_id, "text_prompt": "red"}
        task_id: str = client.post("/api/v1/segment", json=body).json()["data"]["task_id"]
    eventually(lambda: task_id in gpu.report()["predict_calls"])
    return task_id


def read_to_end(peer: socket.socket) -> bytes:
    """Return all that comes until the other end hangs up."""
    got = b""
    # With several workers, one that nobody had accepted yet is reset by the kernel.
    with suppress(ConnectionResetError):
        while piece := peer.recv(65_536):
            got += piece
    return got
