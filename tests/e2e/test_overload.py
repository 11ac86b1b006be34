"""A server with too much to do refuses quickly, and lets nobody hold a place by doing nothing."""

import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from s3edge.testing.server import ServerProcess, StartServer
from s3edge.testing.standins.gpu_process import GpuServerProcess
from tests.waiting import eventually


HEAD = (
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n'
    b"Content-Type: image/png\r\n\r\n"
)
TAIL = b"\r\n--B--\r\n"


class Upload:
    """An upload whose last byte is not sent yet."""

    def __init__(self, server: ServerProcess, authorization: str, image: bytes) -> None:
        body = HEAD + image + TAIL
        self._peer = server.connect()
        self._peer.sendall(
            b"POST /api/v1/upload HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            b"Content-Type: multipart/form-data; boundary=B\r\n"
            b"Authorization: %b\r\nContent-Length: %d\r\n\r\n" % (authorization.encode(), len(body))
        )
        # Asked for when it is read: the upload has its place.
        assert self._peer.recv(65_536).startswith(b"HTTP/1.1 100")
        self._peer.sendall(body[:-1])
        self._last = body[-1:]

    def finish(self) -> int:
        """Send the last byte, and return the status of the answer."""
        with self._peer:
            self._peer.sendall(self._last)
            return int(self._peer.recv(65_536).split()[1])

    def cut(self) -> bytes:
        """Wait until the server hangs up, and return what it said."""
        with self._peer:
            return read_to_end(self._peer)


def read_to_end(peer: socket.socket) -> bytes:
    """Return all that comes until the other end hangs up."""
    got = b""
    try:
        while piece := peer.recv(65_536):
            got += piece
    except ConnectionResetError:
        pass
    return got


def refuses(client: httpx.Client) -> bool:
    """Return whether the server has no place left."""
    return client.get("/api/v1/me").status_code == 503


@pytest.fixture
def gpu() -> Iterator[GpuServerProcess]:
    """Run a GPU server that keeps everybody waiting until it is told otherwise."""
    with GpuServerProcess() as server:
        server.control(silent=True)
        yield server


def test_beyond_the_bound_requests_are_refused_and_the_others_end_well(
    start_server: StartServer, scene: bytes
) -> None:
    """Five uploads hold all places: the sixth request is 503 at once, then everything goes on."""
    server = start_server(S3EDGE_RATE_LIMITS="off", S3EDGE_MAX_REQUESTS="5")
    with server.client() as client:
        authorization = client.headers["Authorization"]
        uploads = [Upload(server, authorization, scene) for _ in range(5)]
        assert refuses(client)

        # Without a token, too: nobody was asked who that is.
        answer = httpx.get(server.url + "/api/v1/me", timeout=30)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert answer.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
        assert answer.headers["X-Request-Id"] == answer.json()["meta"]["request_id"]
        assert client.get("/health").status_code == 200

        assert [upload.finish() for upload in uploads] == [200] * 5
        eventually(lambda: not refuses(client))
        image_id = client.post(
            "/api/v1/upload", files={"file": ("x.png", scene, "image/png")}
        ).json()["data"]["image_id"]
        body = {"image_id": image_id, "text_prompt": "red"}
        assert client.post("/api/v1/segment", json=body).status_code == 202
    assert server.stop() == 0
    warnings = [line for line in server.log.read_text().splitlines() if "refused:" in line]
    assert len(warnings) == 1


def test_one_user_holds_some_of_the_places_and_no_more(
    start_server: StartServer, scene: bytes
) -> None:
    """Sixteen slow uploads of a free user: the next is 429, reads and other users go on."""
    server = start_server(S3EDGE_RATE_LIMITS="free.upload=1000/minute")
    with server.client(tier="free") as client, server.client(tier="free") as other:
        authorization = client.headers["Authorization"]
        uploads = [Upload(server, authorization, scene) for _ in range(16)]
        for path, body in (("upload", scene), ("segment", b"{}")):
            answer = client.post(f"/api/v1/{path}", content=body)
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
            assert answer.json()["error"]["code"] == "RATE_LIMITED"
            assert "are under way" in answer.json()["error"]["message"]
        assert client.get("/api/v1/me").status_code == 200
        form = {"file": ("x.png", scene, "image/png")}
        assert other.post("/api/v1/upload", files=form).status_code == 200

        assert [upload.finish() for upload in uploads] == [200] * 16
        eventually(lambda: client.post("/api/v1/upload", files=form).status_code == 200)
    assert server.stop() == 0


def test_a_refused_body_does_not_spoil_the_connection(
    start_server: StartServer, scene: bytes
) -> None:
    """Nobody read it, and the next request on the same connection is understood."""
    server = start_server(S3EDGE_RATE_LIMITS="off", S3EDGE_MAX_REQUESTS="1")
    with server.client() as client, server.connect() as peer:
        upload = Upload(server, client.headers["Authorization"], scene)
        assert refuses(client)
        body = bytes(1_000_000)
        peer.sendall(
            b"POST /api/v1/upload HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
            + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        answers = read_to_end(peer)
        assert answers.count(b"HTTP/1.1 503") == 1
        assert answers.count(b"HTTP/1.1 200") == 1
        assert json.loads(answers.rpartition(b"\r\n\r\n")[2])["data"]["status"] == "ok"
        assert upload.finish() == 200


def test_a_refused_body_is_not_asked_for(start_server: StartServer, scene: bytes) -> None:
    """A client that waits for ``100 Continue`` hears the refusal instead, and need not send."""
    server = start_server(S3EDGE_RATE_LIMITS="off", S3EDGE_MAX_REQUESTS="1")
    with server.client() as client, server.connect() as peer:
        upload = Upload(server, client.headers["Authorization"], scene)
        assert refuses(client)
        peer.sendall(
            b"POST /api/v1/upload HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            b"Content-Length: 1000000\r\n\r\n"
        )
        assert peer.recv(65_536).startswith(b"HTTP/1.1 503")
        assert upload.finish() == 200


def test_long_polls_take_no_place_and_have_a_bound_of_their_own(
    start_server: StartServer, gpu: GpuServerProcess, scene: bytes
) -> None:
    """Ten wait where five are served; the eleventh is refused, and all ten hear of the end."""
    server = start_server(
        S3EDGE_RATE_LIMITS="off",
        S3EDGE_MAX_REQUESTS="5",
        S3EDGE_MAX_WAITS="10",
        S3EDGE_BACKEND=gpu.url,
        API_SECRET_KEY=gpu.api_key,
    )
    with ExitStack() as stack, server.client() as client:
        image_id = client.post(
            "/api/v1/upload", files={"file": ("x.png", scene, "image/png")}
        ).json()["data"]["image_id"]
        body = {"image_id": image_id, "text_prompt": "red"}
        task_id = client.post("/api/v1/segment", json=body).json()["data"]["task_id"]
        ask = (
            f"GET /api/v1/tasks/{task_id}?wait=30 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Authorization: {client.headers['Authorization']}\r\n\r\n"
        ).encode()

        def refuses_to_wait() -> bool:
            answer = client.get(f"/api/v1/tasks/{task_id}", params={"wait": 0.01})
            # Not for want of a place to be served in: ten wait, and there is no room for another.
            return (
                answer.status_code == 503
                and "Too many long polls" in answer.json()["error"]["message"]
            )

        def poll() -> socket.socket:
            peer = stack.enter_context(server.connect())
            peer.sendall(ask)
            return peer

        def ten_wait() -> bool:
            # One that comes while five others are not waiting yet is refused, and asks again.
            for number, peer in enumerate(polls):
                if select.select([peer], [], [], 0)[0]:
                    polls[number] = poll()
            return not refuses(client) and refuses_to_wait()

        polls = [poll() for _ in range(10)]
        eventually(ten_wait)
        assert client.get("/api/v1/me").status_code == 200
        assert client.get(f"/api/v1/tasks/{task_id}").json()["data"]["status"] == "processing"

        gpu.control(silent=False)
        assert all(b'"status":"done"' in read_to_end(poll) for poll in polls)
    assert server.stop() == 0


def test_an_upload_that_stalls_loses_its_place_and_leaves_nothing(
    start_server: StartServer, scene: bytes
) -> None:
    """The only place is free again after the time-out; neither an object nor a temporary file stays."""
    server = start_server(
        S3EDGE_RATE_LIMITS="off", S3EDGE_MAX_REQUESTS="1", S3EDGE_CLIENT_TIMEOUT_S="3"
    )
    with server.client() as client:
        upload = Upload(server, client.headers["Authorization"], scene)
        assert refuses(client)
        assert upload.cut() == b""
        eventually(lambda: not refuses(client))
    assert server.stop() == 0
    media = server.data_dir / "media"
    left = {path.name for path in media.rglob("*") if path.is_file()}
    assert left <= {".media-secret", ".base-urls"}
    log = server.log.read_text()
    assert "POST /api/v1/upload disconnected" in log
    assert "a client sent too little for too long" in log


def test_an_image_that_nobody_reads_loses_its_place(
    start_server: StartServer, scene: bytes
) -> None:
    """A download that stands still counts, and is cut after the time-out."""
    server = start_server(
        S3EDGE_RATE_LIMITS="off", S3EDGE_MAX_REQUESTS="1", S3EDGE_CLIENT_TIMEOUT_S="3"
    )
    image = scene + bytes(10 * 1024 * 1024 - len(scene))
    with server.client() as client, socket.socket() as peer:
        url = client.post("/api/v1/upload", files={"file": ("x.png", image, "image/png")}).json()[
            "data"
        ]["image_url"]
        eventually(lambda: not refuses(client))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        address = httpx.URL(server.url)
        peer.connect((address.host, address.port))
        peer.sendall(f"GET {url.removeprefix(server.url)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert peer.recv(12) == b"HTTP/1.1 200"
        assert refuses(client)
        eventually(lambda: not refuses(client))
    assert server.stop() == 0
    assert "a client read too little for too long" in server.log.read_text()


def test_a_long_poll_is_no_slow_client(
    start_server: StartServer, gpu: GpuServerProcess, scene: bytes
) -> None:
    """It is held for longer than the time-out, and answered, once and again on one connection."""
    server = start_server(
        S3EDGE_RATE_LIMITS="off",
        S3EDGE_CLIENT_TIMEOUT_S="1",
        S3EDGE_BACKEND=gpu.url,
        API_SECRET_KEY=gpu.api_key,
    )
    limits = httpx.Limits(max_connections=1)
    with server.client() as signed_in:
        headers = signed_in.headers
    with httpx.Client(base_url=server.url, headers=headers, limits=limits, timeout=60) as client:
        image_id = client.post(
            "/api/v1/upload", files={"file": ("x.png", scene, "image/png")}
        ).json()["data"]["image_id"]
        body = {"image_id": image_id, "text_prompt": "red"}
        task_id = client.post("/api/v1/segment", json=body).json()["data"]["task_id"]
        waited = client.get(f"/api/v1/tasks/{task_id}", params={"wait": 3})
        assert waited.json()["data"]["status"] == "processing"
        threading.Timer(2, lambda: gpu.control(silent=False)).start()
        waited = client.get(f"/api/v1/tasks/{task_id}", params={"wait": 30})
        assert waited.json()["data"]["status"] == "done"
    assert server.stop() == 0
    assert "too little for too long" not in server.log.read_text()
