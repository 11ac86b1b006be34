"""What a broken or hostile client sends over a real socket, and what is left behind: nothing."""

import json
import select
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from s3edge.testing.server import ServerProcess
from tests.e2e.doors import Door
from tests.waiting import eventually


LIMIT = 10 * 1024 * 1024

HEAD = (
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n'
    b"Content-Type: image/png\r\n\r\n"
)
TAIL = b"\r\n--B--\r\n"
MULTIPART = {"Content-Type": "multipart/form-data; boundary=B"}


@pytest.fixture
def client(shared_server: ServerProcess) -> Iterator[httpx.Client]:
    """Return a signed-in client."""
    with shared_server.client() as signed_in:
        yield signed_in


def stored(server: ServerProcess) -> set[Path]:
    """Return every file in the media folder, unfinished ones too."""
    media = server.data_dir / "media"
    return {
        path
        for path in media.rglob("*")
        if path.is_file() and path.name not in {".media-secret", ".base-urls"}
    }


def padded(image: bytes, size: int) -> bytes:
    """Return an image file of exactly this size: bytes behind a PNG's end are no part of it."""
    return image + b"\0" * (size - len(image))


def in_chunks(body: bytes, size: int = 64 * 1024) -> Iterator[bytes]:
    """Yield a body in pieces, which makes the request chunked, without a Content-Length."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("chunked", [False, True])
def test_ten_mebibytes_are_accepted_and_one_byte_more_is_not(
    shared_server: ServerProcess, client: httpx.Client, scene: bytes, chunked: bool
) -> None:
    """The limit is exact, with and without Content-Length, and a refused file leaves nothing."""
    before = stored(shared_server)
    for size, status in ((LIMIT, 200), (LIMIT + 1, 413)):
        body = HEAD + padded(scene, size) + TAIL
        answer = client.post(
            "/api/v1/upload", content=in_chunks(body) if chunked else body, headers=MULTIPART
        )
        assert answer.status_code == status, answer.text
        code = "FILE_TOO_LARGE" if status == 413 else None
        assert (answer.json()["error"] or {}).get("code") == code
    assert len(stored(shared_server) - before) == 1


def test_an_endless_body_is_refused_when_the_limit_is_passed(
    door: Door, shared_server: ServerProcess, client: httpx.Client, scene: bytes
) -> None:
    """The answer comes while the client still sends, if the server hands on what it has."""
    before = stored(shared_server)
    sent = 0

    def too_much() -> Iterator[bytes]:
        nonlocal sent
        yield HEAD + scene
        while sent < (16 * LIMIT if door.streams_bodies else 2 * LIMIT):
            sent += 64 * 1024
            yield b"\0" * (64 * 1024)

    # Sent by hand: an HTTP library would finish the body before it reads the answer.
    with shared_server.connect() as connection:
        connection.sendall(
            b"POST /api/v1/upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: multipart/form-data; boundary=B\r\nAuthorization: "
            + client.headers["Authorization"].encode()
            + b"\r\n\r\n"
        )
        for chunk in too_much():
            connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            if select.select([connection], [], [], 0)[0]:
                break
        else:
            connection.sendall(b"0\r\n\r\n")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert sent < 4 * LIMIT
    assert stored(shared_server) == before


def test_a_client_that_stops_half_way_leaves_nothing(
    door: Door, shared_server: ServerProcess, client: httpx.Client, scene: bytes
) -> None:
    """The connection breaks in the middle of the file: no object, no temporary file."""
    before = stored(shared_server)
    with shared_server.connect() as connection:
        connection.sendall(
            b"POST /api/v1/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n"
            b"Content-Type: multipart/form-data; boundary=B\r\nAuthorization: "
            + client.headers["Authorization"].encode()
            + b"\r\n\r\n"
            + HEAD
            + padded(scene, 1_000_000)
        )
        if door.streams_bodies:
            eventually(lambda: len(stored(shared_server) - before) == 1)
    eventually(lambda: stored(shared_server) == before)
    answer = client.post("/api/v1/upload", files={"file": ("x.png", scene, "image/png")})
    assert answer.status_code == 200
    assert len(stored(shared_server) - before) == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"x" * 200_000, id="no boundary"),
        pytest.param(HEAD + b"\x89PNG\r\n\x1a\n" + b"\0" * 300_000, id="no last boundary"),
        pytest.param(TAIL.lstrip(), id="no parts"),
        pytest.param(HEAD + TAIL, id="empty file"),
        pytest.param(
            b'--B\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n' * 100_000 + TAIL,
            id="100,000 parts",
        ),
        pytest.param(
            b"--B\r\nX-Long: " + b"y" * 65_536 + b"\r\n\r\n" + TAIL, id="64 KiB part header"
        ),
    ],
)
def test_a_broken_form_is_refused(
    shared_server: ServerProcess, client: httpx.Client, body: bytes
) -> None:
    """Whatever is wrong with the form, the answer is 400 and nothing is stored."""
    before = stored(shared_server)
    answer = client.post("/api/v1/upload", content=body, headers=MULTIPART)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    assert stored(shared_server) == before


def test_a_request_header_of_64_kib_harms_nobody(
    shared_server: ServerProcess, client: httpx.Client
) -> None:
    """It is refused or ignored, and the next request is served."""
    with shared_server.connect() as connection:
        connection.sendall(
            b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 65_536 + b"\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 ")
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param(b"GET /health HTTP/1.1\r\nHost: x\r\n", id="headers"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ", id="one header"),
        pytest.param(b"GET /", id="path"),
        pytest.param(
            b"POST /api/v1/segment HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            id="trailers",
        ),
    ],
)
def test_a_head_without_an_end_is_cut(
    door: Door, shared_server: ServerProcess, beginning: bytes
) -> None:
    """After 64 KiB that come to nothing the connection is closed, with or without an answer."""
    is_trailer = beginning.endswith(b"0\r\n")
    most = 64 * 1024 * 1024 if door.bounds_trailers or not is_trailer else 1024 * 1024
    line = b"x" * 64 if beginning.endswith((b": ", b"/")) else b"a: " + b"x" * 59 + b"\r\n"
    sent = 0
    with shared_server.connect() as connection:
        connection.sendall(beginning)
        try:
            while sent < most:
                connection.sendall(line * 64)
                sent += 64 * len(line)
        except OSError:
            pass
    assert sent < 16 * 1024 * 1024
    assert httpx.get(shared_server.url + "/health").status_code == 200


def test_a_trailer_is_no_header(shared_server: ServerProcess, client: httpx.Client) -> None:
    """What comes behind the body signs nobody in."""
    with shared_server.connect() as connection:
        connection.sendall(
            b"GET /api/v1/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: "
            + client.headers["Authorization"].encode()
            + b"\r\n\r\n"
        )
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 401")


def test_what_is_no_http_is_refused(door: Door, shared_server: ServerProcess) -> None:
    """Even what never becomes a request is answered, and in the envelope where that is up to us."""
    with shared_server.connect() as connection:
        connection.sendall(b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    if door.envelopes_bad_http:
        assert json.loads(body)["error"]["code"] == "INVALID_REQUEST"


def test_a_header_that_takes_long_to_read_is_not_read(
    shared_server: ServerProcess, client: httpx.Client
) -> None:
    """Colour profiles that inflate a thousandfold are passed over: only dimensions are looked at."""
    profile = b"icc\0\0" + zlib.compress(bytes(1_000_000))
    chunks = [png_chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))]
    chunks += [png_chunk(b"iCCP", profile)] * 1_900
    image = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    answer = client.post("/api/v1/upload", files={"file": ("x.png", image, "image/png")})
    assert answer.status_code == 200
    assert answer.json()["data"]["width"] == 4


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def test_a_refused_segment_costs_nothing(
    shared_server: ServerProcess, client: httpx.Client, scene: bytes
) -> None:
    """After every kind of refusal the balance is whole and there is no row."""
    uploaded = client.post("/api/v1/upload", files={"file": ("x.png", scene, "image/png")}).json()[
        "data"
    ]
    url = uploaded["image_url"]
    bodies: list[object] = [
        [],
        "text",
        {},
        {"image_url": url},
        {"text_prompt": "x"},
        {"image_url": url, "text_prompt": ""},
        {"image_url": url, "text_prompt": "a\u0000b"},
        {"image_url": url, "text_prompt": "x" * 501},
        {"image_url": url, "text_prompt": 5},
        {"image_url": url, "image_id": uploaded["image_id"], "text_prompt": "x"},
        {"image_url": url, "text_prompt": "x", "project_id": "mine"},
        {"image_url": "file:///etc/passwd", "text_prompt": "x"},
        {"image_url": "http://169.254.169.254/latest", "text_prompt": "x"},
        {"image_url": url.replace("127.0.0.1", "evil.example"), "text_prompt": "x"},
    ]
    for body in bodies:
        answer = client.post("/api/v1/segment", json=body)
        assert answer.status_code == 400, (body, answer.text)
    raw = b'{"image_url": "%b", "text_prompt": "lone \\ud800 surrogate"}' % url.encode()
    assert client.post("/api/v1/segment", content=raw).status_code == 400
    assert client.post("/api/v1/segment", content=b"[" * 60_000).status_code == 400
    assert client.post("/api/v1/segment", content=b" " * 65_537).status_code == 413
    assert client.get("/api/v1/me").json()["data"]["credits"] == 100
    assert client.get("/api/v1/results").json()["data"]["total"] == 0
