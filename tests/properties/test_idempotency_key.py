"""Headers, queries and bodies: whatever bytes arrive, they are read or refused, never more."""

import itertools
import json
import re
from collections.abc import AsyncIterator, Callable

import anyio
import msgspec
from hypothesis import given
from hypothesis import strategies as st

from s3edge.errors import Code, EdgeError
from s3edge.gateway import Gateway
from s3edge.memory import (
    MemoryAuthenticator,
    MemoryDatabase,
    MemoryObjectStorage,
    MemoryRateLimiter,
    ThresholdBackend,
)
from s3edge.testing.clock import ManualClock
from s3edge.values import User
from s3edge.web.app import PathRoutes, WebApp
from s3edge.web.http import ClientDisconnected, Request, Response
from s3edge.web.messages import ResultsQuery, SegmentRequest, TaskQuery
from s3edge.web.parsing import (
    IDEMPOTENCY_KEY_PATTERN,
    read_idempotency_key,
    read_json,
    read_query,
)


# What a door hands over is decoded as latin-1.
LATIN = st.text(st.characters(max_codepoint=255), max_size=80)
PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.uuids().map(str),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text_prompt", "image_url", "image_id", "project_id"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
BODIES = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode()),
    JSON.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")),
)
QUERIES = st.one_of(
    LATIN,
    st.lists(
        st.builds(
            "{}={}".format,
            st.sampled_from(["page", "limit", "project_id", "status", "cursor", "wait", "x"]),
            st.one_of(
                LATIN,
                st.integers().map(str),
                st.floats().map(str),
                st.uuids().map(str),
                st.sampled_from(["done", "null", "%00", "%ff", "%ED%A0%80", "1e9", "0", ""]),
            ),
        ),
        max_size=5,
    ).map("&".join),
)


async def chunked(body: bytes, cuts: list[int]) -> AsyncIterator[bytes]:
    """Yield a body in pieces."""
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in itertools.pairwise(places):
        yield body[start:end]


def request(
    query: str = "",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    cuts: list[int] | None = None,
) -> Request:
    """Return a request as a door hands it over."""
    return Request("GET", "/", query, headers or {}, chunked(body, cuts or []))


def refusal_of(read: Callable[[], object]) -> EdgeError | None:
    """Return how something is refused, if it is, having seen that the refusal can be sent."""
    try:
        read()
    except EdgeError as error:
        refusal = error
    else:
        return None
    assert refusal.code is Code.INVALID_REQUEST
    assert refusal.details
    str(refusal).encode()
    return refusal


@given(st.text(PRINTABLE, min_size=1, max_size=255))
def test_a_quoted_key_is_what_stands_between_the_quotes(key: str) -> None:
    """Every printable ASCII text of up to 255 characters can be a key, in quotes."""
    assert read_idempotency_key(request(headers={"idempotency-key": f'"{key}"'})) == key


@given(st.text(PRINTABLE, min_size=1, max_size=255).filter(lambda key: key == key.strip()))
def test_a_bare_key_is_itself(key: str) -> None:
    """Without quotes around it a key is taken as it is."""
    if not key.startswith('"'):
        assert read_idempotency_key(request(headers={"idempotency-key": key})) == key


@given(LATIN | st.text(PRINTABLE, min_size=250, max_size=260))
def test_any_header_is_a_key_or_a_bad_request(text: str) -> None:
    """What is no key is refused, and the OpenAPI document's pattern says the same."""
    headers = {"idempotency-key": text}

    refusal = refusal_of(lambda: read_idempotency_key(request(headers=headers)))

    assert bool(re.search(IDEMPOTENCY_KEY_PATTERN.replace("$", r"\Z"), text)) == (refusal is None)


@given(QUERIES, st.sampled_from([ResultsQuery, TaskQuery]))
def test_any_query_is_read_or_a_bad_request(query: str, message: type[msgspec.Struct]) -> None:
    """No query string raises anything else, and what is refused can be written down."""
    refusal_of(lambda: read_query(request(query=query), message))


@given(BODIES, st.lists(st.integers(min_value=0), max_size=3))
def test_any_body_is_read_or_a_bad_request(body: bytes, cuts: list[int]) -> None:
    """No body raises anything else, however it is cut, and what is refused can be written down."""

    async def read() -> SegmentRequest:
        return await read_json(request(body=body, cuts=cuts), SegmentRequest)

    refusal_of(lambda: anyio.run(read))


def application() -> tuple[WebApp, str]:
    """Return an application over memory, without limits, and a token."""
    clock = ManualClock()
    storage = MemoryObjectStorage("https://edge.test", clock)
    authenticator = MemoryAuthenticator(clock)
    gateway = Gateway(
        authenticator=authenticator,
        storage=storage,
        database=MemoryDatabase(clock, initial_credits=10**9),
        backend=ThresholdBackend(storage),
        rate_limiter=MemoryRateLimiter(clock),
        clock=clock,
    )
    # Long polls are answered at once.
    gateway.stop_waiting()
    token = authenticator.issue(User(gateway.ids.new()), 10**9)
    return WebApp(gateway, extra_routes=storage.routes()), token


HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "authorization",
            "content-type",
            "content-length",
            "idempotency-key",
            "x-request-id",
            "x-forwarded-for",
            "origin",
            "access-control-request-method",
        ]
    ),
    LATIN
    | st.sampled_from(
        ["multipart/form-data; boundary=b", "Bearer x", "1", "application/json", "9" * 30]
    ),
    max_size=4,
)


@given(
    data=st.data(),
    method=st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "PUT"]) | LATIN,
    query=QUERIES,
    headers=HEADERS,
    signed_in=st.booleans(),
    disconnects=st.booleans(),
    body=BODIES,
    cuts=st.lists(st.integers(min_value=0), max_size=3),
)
def test_no_request_is_our_own_error(
    data: st.DataObject,
    method: str,
    query: str,
    headers: dict[str, str],
    signed_in: bool,
    disconnects: bool,
    body: bytes,
    cuts: list[int],
) -> None:
    """Whatever is sent to whichever path is answered by less than 500, or the client is gone."""
    web, token = application()
    path: PathRoutes | None = data.draw(st.sampled_from([None, *web.paths]))
    if path is not None and data.draw(st.booleans()):
        method = data.draw(st.sampled_from([*path.by_method]))

    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in chunked(body, cuts):
            yield chunk
        if disconnects:
            raise ClientDisconnected

    name = data.draw(LATIN | st.uuids().map(str))
    sent = Request(
        method=method,
        path="/" + name,
        query=query,
        headers=headers | ({"authorization": f"Bearer {token}"} if signed_in else {}),
        body=chunks(),
        path_params={"id": name, "key": name},
        peer=data.draw(st.none() | LATIN),
    )

    async def handle() -> Response | None:
        try:
            async with web.gateway.running(), web.response_to(sent, path) as response:
                return response
        except ClientDisconnected:
            assert disconnects
            return None

    response = anyio.run(handle)

    assert response is None or 200 <= response.status < 500
