"""A store that takes only what R2 takes, writes down what it is sent, and fails as a test says."""

import hashlib
import hmac
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

import anyio
import pytest
from aiohttp import web
from attrs import define, field, frozen
from botocore.credentials import Credentials

from s3edge.ports import Ids
from s3edge.testing import ManualClock
from s3edge_s3.access_keys import AccessKeys
from s3edge_s3.addresses import custom_address
from s3edge_s3.presets import R2_NAMES
from s3edge_s3.storage import S3ObjectStorage


ACCESS_KEY_ID = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
BUCKET = "s3-images"
PART_BYTES = 5 * 1024 * 1024

KEPT_BYTES = 64 * 1024
"""Longer bodies are counted and hashed, and not kept."""

REFUSED_HEADERS = ("x-amz-acl", "x-amz-tagging", "x-amz-trailer", "x-amz-checksum-", "x-amz-sdk-")
"""What R2 answers 501 to, by the beginnings of the names."""

Hook = Callable[["Sent"], Awaitable[web.Response | None]]


@frozen
class Sent:
    """
    One request as it arrived.

    Attributes:
        action: ``PUT``, ``PUT part 1``, ``POST begin``, ``POST complete``, ``DELETE upload`` and so on.
        key: Of the object.
        headers: Names in lower case.
        size_bytes: Of the body.
        md5: Of the body, in hex.
        sha256: Of the body, in hex.
        body: The body itself, unless it is long.
    """

    action: str
    key: str
    headers: Mapping[str, str]
    size_bytes: int
    md5: str
    sha256: str
    body: bytes


@define
class Stored:
    """An object, or an upload with its parts."""

    key: str
    headers: Mapping[str, str]
    size_bytes: int = 0
    etag: str = ""
    body: bytes = b""
    parts: dict[int, Sent] = field(factory=dict)


class HangUp(Exception):  # noqa: N818 - an event, not an error
    """Tells the store to close the connection without an answer."""


@define
class RecordingStore:
    """
    The store.

    Attributes:
        endpoint: Where it is.
        sent: Every request, in order.
        objects: By key.
        uploads: Unfinished ones, by id.
        received_bytes: Of all bodies, while they arrive.
        before: Answers instead of the store, or returns ``None``.
        after: Answers after the store has acted, in its place, or returns ``None``.
    """

    endpoint: str = ""
    sent: list[Sent] = field(factory=list)
    objects: dict[str, Stored] = field(factory=dict)
    uploads: dict[str, Stored] = field(factory=dict)
    received_bytes: int = 0
    before: Hook | None = None
    after: Hook | None = None
    _over: anyio.Event = field(init=False, factory=anyio.Event)

    @property
    def actions(self) -> list[str]:
        """What was asked, in order."""
        return [sent.action for sent in self.sent]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is there, finished or not."""
        return not self.objects and not self.uploads

    def keep(self, key: str, body: bytes, content_type: str = "image/webp") -> None:
        """Have an object that somebody else put."""
        headers = {"content-type": content_type}
        self.objects[key] = Stored(key, headers, len(body), hashlib.md5(body).hexdigest(), body)

    async def silence(self) -> None:
        """Say nothing until the test is over."""
        await self._over.wait()
        raise HangUp

    def end(self) -> None:
        """Let go of the requests that got no answer."""
        self._over.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        sent = await self._read(request)
        self.sent.append(sent)
        try:
            answer = await self.before(sent) if self.before else None
            if answer is None:
                answer = refusal_of(request, sent) or self._act(request, sent)
                instead = await self.after(sent) if self.after else None
                answer = instead or answer
        except HangUp:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return answer

    async def _read(self, request: web.Request) -> Sent:
        md5, sha256, size_bytes, body = hashlib.md5(), hashlib.sha256(), 0, bytearray()
        async for chunk in request.content.iter_any():
            self.received_bytes += len(chunk)
            size_bytes += len(chunk)
            md5.update(chunk)
            sha256.update(chunk)
            body += chunk[: KEPT_BYTES - len(body)]
        headers = {name.lower(): value for name, value in request.headers.items()}
        key = request.path.removeprefix(f"/{BUCKET}/")
        query = dict(request.query)
        action = request.method
        if "uploads" in query:
            action += " begin"
        elif "partNumber" in query:
            action += f" part {query['partNumber']}"
        elif "uploadId" in query:
            action += " complete" if request.method == "POST" else " upload"
        return Sent(
            action, key, headers, size_bytes, md5.hexdigest(), sha256.hexdigest(), bytes(body)
        )

    def _act(self, request: web.Request, sent: Sent) -> web.Response:
        verb, _, what = sent.action.partition(" ")
        if what == "begin":
            return self._begin(sent)
        if what:
            return self._of_upload(request, sent)
        stored = self.objects.get(sent.key)
        if verb == "PUT":
            if stored is not None and sent.headers.get("if-none-match") == "*":
                return error(412, "PreconditionFailed")
            self.objects[sent.key] = Stored(
                sent.key, sent.headers, sent.size_bytes, sent.md5, sent.body
            )
            return web.Response(headers={"ETag": f'"{sent.md5}"'})
        if verb == "DELETE":
            self.objects.pop(sent.key, None)
            return web.Response(status=204)
        return error(404, "NoSuchKey") if stored is None else self._show(verb, stored)

    def _show(self, verb: str, stored: Stored) -> web.Response:
        headers = {"ETag": f'"{stored.etag}"', "Content-Type": stored.headers["content-type"]}
        headers |= {name: text for name, text in stored.headers.items() if "x-amz-meta" in name}
        if verb == "HEAD":
            return web.Response(headers=headers | {"Content-Length": str(stored.size_bytes)})
        return web.Response(body=stored.body, headers=headers)

    def _begin(self, sent: Sent) -> web.Response:
        # R2's ids hold what a query must not.
        upload_id = f"{secrets.token_hex(8)}+/=&x"
        self.uploads[upload_id] = Stored(sent.key, sent.headers)
        named = upload_id.replace("&", "&amp;")
        return web.Response(
            text=f"<R><Bucket>{BUCKET}</Bucket><UploadId>{named}</UploadId></R>",
            content_type="application/xml",
        )

    def _of_upload(self, request: web.Request, sent: Sent) -> web.Response:
        upload_id = request.query["uploadId"]
        upload = self.uploads.get(upload_id)
        if upload is None or upload.key != sent.key:
            return error(404, "NoSuchUpload")
        if sent.action.startswith("PUT part"):
            upload.parts[int(request.query["partNumber"])] = sent
            return web.Response(headers={"ETag": f'"{sent.md5}"'})
        if sent.action == "DELETE upload":
            del self.uploads[upload_id]
            return web.Response(status=204)
        if sent.key in self.objects and sent.headers.get("if-none-match") == "*":
            return error(412, "PreconditionFailed")
        return self._complete(upload_id, upload, sent)

    def _complete(self, upload_id: str, upload: Stored, sent: Sent) -> web.Response:
        parts = [upload.parts[number] for number in sorted(upload.parts)]
        for number, part in enumerate(parts, start=1):
            named = f'<PartNumber>{number}</PartNumber><ETag>"{part.md5}"</ETag>'
            if named.encode() not in sent.body:
                return error(400, "InvalidPart")
        if {part.size_bytes for part in parts[:-1]} not in (set(), {PART_BYTES}):
            return error(400, "InvalidPart")
        digests = b"".join(bytes.fromhex(part.md5) for part in parts)
        upload.etag = f"{hashlib.md5(digests).hexdigest()}-{len(parts)}"
        upload.size_bytes = sum(part.size_bytes for part in parts)
        del self.uploads[upload_id]
        self.objects[sent.key] = upload
        return web.Response(text=f"<R><ETag>&quot;{upload.etag}&quot;</ETag></R>")


def error(status: int, code: str) -> web.Response:
    """Return an S3 error."""
    return web.Response(
        status=status,
        text=f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>',
        content_type="application/xml",
    )


def refusal_of(request: web.Request, sent: Sent) -> web.Response | None:
    """Return R2's answer to what it does not take, ``None`` for the rest."""
    if any(name.startswith(REFUSED_HEADERS) for name in sent.headers):
        return error(501, "NotImplemented")
    if "aws-chunked" in sent.headers.get("content-encoding", ""):
        return error(401, "Unauthorized")
    is_write = request.method in ("PUT", "POST")
    if is_write and ("content-length" not in sent.headers or "expect" in sent.headers):
        return error(411, "MissingContentLength")
    if "transfer-encoding" in sent.headers:
        return error(411, "MissingContentLength")
    query = dict(parse_qsl(request.query_string, keep_blank_values=True))
    if "X-Amz-Signature" in query:
        expected = signature(request, sent, "UNSIGNED-PAYLOAD", query["X-Amz-SignedHeaders"])
        is_right = query["X-Amz-Signature"] == expected
    else:
        payload = sent.headers.get("x-amz-content-sha256", "")
        if payload != sent.sha256:
            return error(400, "XAmzContentSHA256Mismatch")
        given = sent.headers.get("authorization", "")
        names = given.partition("SignedHeaders=")[2].partition(",")[0]
        expected = signature(request, sent, payload, names)
        is_right = given.endswith(f"Signature={expected}")
    return None if is_right else error(403, "SignatureDoesNotMatch")


def signature(request: web.Request, sent: Sent, payload: str, names: str) -> str:
    """
    Return the AWS Signature Version 4 that a request must have, worked out from what arrived.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
    """
    pairs = sorted(
        pair if "=" in pair else f"{pair}="
        for pair in request.rel_url.raw_query_string.split("&")
        if pair and not pair.startswith("X-Amz-Signature=")
    )
    headers = "".join(f"{name}:{sent.headers[name]}\n" for name in names.split(";"))
    path = request.rel_url.raw_path
    canonical = f"{request.method}\n{path}\n{'&'.join(pairs)}\n{headers}\n{names}\n{payload}"
    when = sent.headers.get("x-amz-date") or request.query["X-Amz-Date"]
    scope = f"{when[:8]}/auto/s3/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{SECRET}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{when}\n{scope}\n{hashed}"
    return hmac.digest(key, text.encode(), "sha256").hex()


class RandomIds:
    """Random ids."""

    new = staticmethod(uuid4)


@pytest.fixture
async def store() -> AsyncIterator[RecordingStore]:
    """Return a running, empty store."""
    store = RecordingStore()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", store.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        store.endpoint = f"http://{host}:{port}"
        yield store
    finally:
        store.end()
        await runner.cleanup()


OpenStorage = Callable[..., AbstractAsyncContextManager[S3ObjectStorage]]


@pytest.fixture
def open_storage(monkeypatch: pytest.MonkeyPatch) -> OpenStorage:
    """Return what opens a storage on an endpoint; with ordinary patience, by default."""
    monkeypatch.setattr("s3edge_s3.requests._FIRST_DELAY_S", 0.02)

    @asynccontextmanager
    async def opened(
        endpoint: str,
        *,
        public_base_url: str | None = None,
        token: str | None = None,
        keys: AccessKeys | None = None,
        **options: Any,
    ) -> AsyncIterator[S3ObjectStorage]:
        ids: Ids = RandomIds()
        async with S3ObjectStorage(
            custom_address(endpoint, BUCKET, "auto", public_base_url=public_base_url),
            keys or AccessKeys(Credentials(ACCESS_KEY_ID, SECRET, token)),
            names=R2_NAMES,
            clock=ManualClock(),
            ids=ids,
            **{"random": lambda: 0.0, **options},
        ) as storage:
            yield storage

    return opened


@pytest.fixture
async def storage(
    store: RecordingStore, open_storage: OpenStorage
) -> AsyncIterator[S3ObjectStorage]:
    """Return a storage on the store."""
    async with open_storage(store.endpoint) as storage:
        yield storage


@pytest.fixture
async def hasty(store: RecordingStore, open_storage: OpenStorage) -> AsyncIterator[S3ObjectStorage]:
    """Return a storage that soon gives up, for stores that fall silent amid their work."""
    async with open_storage(store.endpoint, timeout_s=1.0, budget_s=1.2) as storage:
        yield storage


@pytest.fixture
async def impatient(
    store: RecordingStore, open_storage: OpenStorage
) -> AsyncIterator[S3ObjectStorage]:
    """Return a storage that gives up at once, for stores that are silent; it need not succeed."""
    async with open_storage(store.endpoint, timeout_s=0.2, budget_s=0.3) as storage:
        yield storage


@pytest.fixture
def secret() -> str:
    """Return what belongs to every key that the store takes."""
    return SECRET


@pytest.fixture
def answer_with() -> Callable[[int, str], web.Response]:
    """Return what makes S3 errors."""
    return error


@pytest.fixture
def hang_up() -> type[Exception]:
    """Return what a hook raises to close the connection without an answer."""
    return HangUp


@pytest.fixture
def find_free_port() -> Callable[[], int]:
    """Return what finds a port at which nobody listens."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find
