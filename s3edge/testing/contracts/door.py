"""What every door must do: carry requests and responses over a real socket, unchanged."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import pytest
from attrs import field, frozen

from s3edge.rules.images import MAX_IMAGE_BYTES


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000020000000108020000007b40e8dd"
    "0000000f49444154789c63f8ffff3f030303000ef802fec98b83f50000000049454e44ae426082"
)
"""An image of two pixels."""

_BOUNDARY = "door"
_HEAD = (
    f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n'
    "Content-Type: image/png\r\n\r\n"
).encode()
_TAIL = f"\r\n--{_BOUNDARY}--\r\n".encode()
_MULTIPART = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
_CHUNK = b"\0" * 65_536

_WITHIN_S = 20.0


@frozen
class DoorHarness:
    """
    What the suite needs.

    Attributes:
        url: Where a server with the door listens, with the prefix that the door is mounted under;
            behind it a deployment whose limits are off.
        token: Of a user with credits.
        stored: Counts what the storage holds, unfinished objects too.
    """

    url: str
    token: str = field(repr=False)
    stored: Callable[[], int]

    def client(self) -> httpx.Client:
        """Return a client signed in as the user."""
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=30
        )

    @property
    def prefix(self) -> str:
        """The path under which the door is mounted, without a trailing slash."""
        return urlsplit(self.url).path.rstrip("/")


class DoorContract:
    """
    The promises of a door, checked over a socket.

    A subclass supplies the fixture ``harness``.
    """

    def test_a_request_and_its_answer_arrive_whole(self, harness: DoorHarness) -> None:
        """Method, path, query, headers, body, status and the answer's headers are carried."""
        with harness.client() as client:
            request_id = str(uuid4())
            answer = client.get(
                "/api/v1/results",
                params={"limit": "7", "page": "2"},
                headers={"X-Request-Id": request_id},
            )
            assert answer.status_code == 200
            assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
            assert answer.headers["X-Request-Id"] == request_id
            assert answer.json()["data"] == {"results": [], "total": 0, "page": 2, "limit": 7}

    def test_a_task_is_found_where_the_answer_says(self, harness: DoorHarness) -> None:
        """``Location`` holds under the prefix that the door is mounted under."""
        with harness.client() as client:
            image = client.post("/api/v1/upload", files={"file": ("x.png", PNG, "image/png")})
            image_id = image.json()["data"]["image_id"]
            accepted = client.post(
                "/api/v1/segment", json={"image_id": image_id, "text_prompt": "ärger 赤"}
            )
            location = accepted.headers["Location"]
            assert location.startswith(harness.prefix + "/api/v1/tasks/")
            origin = harness.url.removesuffix(harness.prefix)
            task = client.get(origin + location, params={"wait": 20}).json()["data"]
            assert task["status"] == "done"
            result = client.get(f"/api/v1/results/{task['task_id']}").json()["data"]
            assert result["text_prompt"] == "ärger 赤"
            mask = httpx.get(result["mask_image_url"])
            assert (mask.status_code, mask.headers["Content-Type"]) == (200, "image/png")
            assert int(mask.headers["Content-Length"]) == len(mask.content)

    @pytest.mark.parametrize(
        "path", ["/", "/nothing", "/api/v1/me/", "/api/v1/tasks/", "/a/%2e%2e"]
    )
    def test_an_unknown_path_is_404_in_the_envelope(self, harness: DoorHarness, path: str) -> None:
        """What is not in the route table is ours to answer, not the framework's."""
        with harness.client() as client:
            answer = client.get(path)
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "NOT_FOUND"
            assert UUID(answer.json()["meta"]["request_id"]).version == 4

    @pytest.mark.parametrize("method", ["DELETE", "PATCH", "TRACE", "OPTIONS", "PROPFIND"])
    def test_another_method_is_405_in_the_envelope(self, harness: DoorHarness, method: str) -> None:
        """``Allow`` says what is served."""
        with harness.client() as client:
            answer = client.request(method, "/api/v1/me")
            assert answer.status_code == 405
            assert answer.headers["Allow"] == "GET, HEAD"
            assert answer.json()["error"]["code"] == "METHOD_NOT_ALLOWED"

    def test_head_is_get_without_the_body(self, harness: DoorHarness) -> None:
        """The status and the length of the body are those of ``GET``."""
        with harness.client() as client:
            got, head = client.get("/openapi.json"), client.head("/openapi.json")
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["Content-Length"] == str(len(got.content))

    def test_a_body_without_a_length_arrives_whole(self, harness: DoorHarness) -> None:
        """A chunked body is streamed to its end."""

        def body() -> Iterator[bytes]:
            yield _HEAD + PNG
            for _ in range(32):
                yield _CHUNK
            yield _TAIL

        with harness.client() as client:
            answer = client.post("/api/v1/upload", content=body(), headers=_MULTIPART)
            assert answer.status_code == 200, answer.text
            assert answer.json()["data"]["size_bytes"] == len(PNG) + 32 * len(_CHUNK)

    def test_a_body_that_is_cut_short_is_no_upload(self, harness: DoorHarness) -> None:
        """The connection breaks before the promised length: that is no end of file."""
        before = self._stored_total(harness)
        with _connected(harness) as peer:
            peer.sendall(
                f"POST {harness.prefix}/api/v1/segment HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer {harness.token}\r\nContent-Length: 4000\r\n\r\n"
                '{"text_prompt": "x"'.encode()
            )
        assert self._stored_total(harness) == before

    @pytest.mark.parametrize("framing", ["Content-Length: ", "Transfer-Encoding: chunked"])
    def test_an_upload_that_is_cut_short_leaves_nothing(
        self, harness: DoorHarness, framing: str
    ) -> None:
        """Neither with a length that it does not reach, nor chunked without a last chunk."""
        before = harness.stored()
        form = _HEAD + PNG + _CHUNK * 8 + _TAIL
        # All of the form is there; what is missing is the end of the body.
        if framing.endswith("chunked"):
            body = b"%x\r\n%b\r\n" % (len(form), form)
        else:
            framing, body = f"{framing}{len(form) + 1}", form
        with _connected(harness) as peer:
            peer.sendall(
                f"POST {harness.prefix}/api/v1/upload HTTP/1.1\r\nHost: x\r\n{framing}\r\n"
                f"Authorization: Bearer {harness.token}\r\n"
                f"Content-Type: {_MULTIPART['Content-Type']}\r\n\r\n".encode()
            )
            peer.sendall(body)
            peer.shutdown(socket.SHUT_WR)
            assert b" 200 " not in _read_to_end(peer).partition(b"\r\n")[0]
        with harness.client() as client:
            whole = client.post("/api/v1/upload", files={"file": ("x.png", PNG, "image/png")})
            assert whole.status_code == 200
        _eventually(lambda: harness.stored() == before + 1)

    def test_an_image_comes_back_as_it_was_sent(self, harness: DoorHarness) -> None:
        """Streamed both ways, byte by byte; and who reads only its beginning harms nobody."""
        image = PNG + bytes(range(256)) * 16_384
        with harness.client() as client:
            sent = client.post("/api/v1/upload", files={"file": ("x.png", image, "image/png")})
            url = sent.json()["data"]["image_url"]
            with client.stream("GET", url) as beginning:
                assert next(beginning.iter_raw()) == image[: beginning.num_bytes_downloaded]
            assert client.get(url).content == image
            head = client.head(url)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["Content-Length"] == str(len(image))

    def test_a_repeated_header_is_not_one_of_them(self, harness: DoorHarness) -> None:
        """Its values are joined by a comma (RFC 9110), so that two tokens sign nobody in."""
        credentials = ("Authorization", f"Bearer {harness.token}")
        answer = httpx.get(harness.url + "/api/v1/me", headers=[credentials, credentials])
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "AUTH_INVALID"

    def test_a_body_over_the_limit_is_answered(self, harness: DoorHarness) -> None:
        """A client that sends on is answered 413 and can go on with its next request."""

        def body() -> Iterator[bytes]:
            yield _HEAD + PNG
            for _ in range(MAX_IMAGE_BYTES // len(_CHUNK) + 16):
                yield _CHUNK
            yield _TAIL

        with harness.client() as client:
            answer = client.post("/api/v1/upload", content=body(), headers=_MULTIPART)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "FILE_TOO_LARGE"
            assert client.get("/health").status_code == 200

    def test_headers_of_any_bytes_are_answered(self, harness: DoorHarness) -> None:
        """Bytes beyond ASCII in a header are no fault of the server's."""
        with _connected(harness) as peer:
            peer.sendall(
                f"GET {harness.prefix}/api/v1/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                "Authorization: Bearer \xff\xfe\r\nX-Request-Id: \xe9\r\n\r\n".encode("latin-1")
            )
            answer = _read_to_end(peer)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 401")
        assert json.loads(body)["error"]["code"] == "AUTH_INVALID"

    def _stored_total(self, harness: DoorHarness) -> int:
        with harness.client() as client:
            total: int = client.get("/api/v1/results").json()["data"]["total"]
            return total


def _connected(harness: DoorHarness) -> socket.socket:
    """Return a bare connection, for what an HTTP library would not send."""
    parts = urlsplit(harness.url)
    return socket.create_connection((str(parts.hostname), int(parts.port or 80)), 30)


def _read_to_end(peer: socket.socket) -> bytes:
    got = b""
    while piece := peer.recv(65_536):
        got += piece
    return got


def _eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
