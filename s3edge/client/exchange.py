"""One call with all its attempts: token, retries, deadlines. Everything that is sent passes here."""

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

from attrs import field, frozen

import s3edge
from s3edge.client import logs
from s3edge.client.answers import check_plain, data_of, error_of, is_success
from s3edge.client.effects import Body, Flow, HttpCall, HttpReply, send, sleep
from s3edge.client.errors import (
    AuthInvalid,
    AuthRequired,
    ConfigurationError,
    S3EdgeError,
    TimedOut,
)
from s3edge.client.models import RawResponse
from s3edge.client.retries import may_repeat, pause_s
from s3edge.client.sendable import check_sendable
from s3edge.client.session import TOKEN_VARIABLE, Secret, Session


T = TypeVar("T")

USER_AGENT = f"s3edge-python/{s3edge.__version__}"

MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""Of JSON: the longest page of results is well under it."""

NO_CONTENT = 204


@frozen
class Request:
    """
    What a flow wants sent.

    Attributes:
        method: In upper case.
        target: A path under the server's address, or an absolute URL.
        query: Parameters; those that are ``None`` are left out.
        headers: Further headers.
        body: Bytes, or something that is streamed.
        idempotency_key: Makes a repeat of a POST safe.
        needs_token: Whether the call is refused without a token before anything is sent.
        deadline: An end that is earlier than the total time-out's, on the monotonic clock.
        max_bytes: How long the answer may be.
        is_json: Whether the answer is the API's; else it is any bytes.
    """

    method: str
    target: str = field(repr=False)
    query: Mapping[str, object] = field(factory=dict[str, object], repr=False)
    headers: Mapping[str, str] = field(factory=dict[str, str], repr=False)
    body: bytes | Body | None = field(default=None, repr=False)
    idempotency_key: str | None = None
    needs_token: bool = True
    deadline: float | None = None
    max_bytes: int = MAX_ANSWER_BYTES
    is_json: bool = True


def exchange(session: Session, request: Request) -> Flow[RawResponse[Any]]:
    """
    Send a request until it is answered well, or there is no point in sending it again.

    Returns:
        The answer; its ``parsed`` is the envelope's ``data``, the bytes where no JSON is expected, and
        ``None`` where HTTP has no body.

    Raises:
        S3EdgeError: The server refused, cannot be reached, or took too long.
    """
    try:
        return (yield from _exchange(session, request))
    except S3EdgeError as error:
        error.idempotency_key = request.idempotency_key
        raise


def _exchange(session: Session, request: Request) -> Flow[RawResponse[Any]]:
    around = session.surroundings
    deadline = around.monotonic() + session.timeout.total
    if request.deadline is not None:
        deadline = min(deadline, request.deadline)
    url = session.url_of(request.target)
    own = session.is_own(url) and request.is_json
    token = (yield from session.token.current()) if own else None
    if request.needs_token and own and token is None:
        raise AuthRequired(
            "There is no access token; give token=, or leave it out of Client() and set"
            f" {TOKEN_VARIABLE}."
        )
    failures, renewed = 0, False
    while True:
        call = _call(session, request, url, token if own else None, own=own, deadline=deadline)
        try:
            reply = yield from send(call)
            logs.answered(call, reply, failures)
            return _response(session, request, url, reply)
        except S3EdgeError as caught:
            error = caught
        if error.status is None:
            logs.failed(call, error, failures)
        if own and isinstance(error, AuthInvalid) and session.token.can_renew and not renewed:
            renewed = True
            token = yield from session.token.renewed(token)
            continue
        if failures >= session.max_retries or not may_repeat(
            error, request.method, request.idempotency_key
        ):
            raise error
        pause = pause_s(error, failures, around.random)
        if around.monotonic() + pause >= deadline:
            # Waiting would only end in a time-out; who called can say better what to do meanwhile.
            raise error
        failures += 1
        yield from sleep(pause)


def _call(
    session: Session,
    request: Request,
    url: str,
    token: Secret | None,
    *,
    own: bool,
    deadline: float,
) -> HttpCall:
    query = {name: value for name, value in request.query.items() if value is not None}
    if query:
        check_sendable(query)
        url = f"{url}{'&' if '?' in url else '?'}{urlencode(query)}"
    headers = {"user-agent": USER_AGENT}
    if own:
        headers |= {"accept": "application/json", **_named(session.headers)}
    headers |= _named(request.headers)
    if request.idempotency_key is not None and own:
        headers["idempotency-key"] = request.idempotency_key
    _check(headers)
    left_s = deadline - session.surroundings.monotonic()
    if left_s <= 0:
        raise TimedOut("The call did not end in time.", retryable=True)
    if token is not None:
        # Last of all: nothing after it fails, and shows it.
        headers["authorization"] = f"Bearer {token.value}"
    return HttpCall(
        method=request.method,
        url=url,
        headers=headers,
        body=request.body,
        connect_s=min(session.timeout.connect, left_s),
        read_s=min(session.timeout.read, left_s),
        deadline=deadline,
        max_bytes=request.max_bytes,
        follows_redirects=not request.is_json,
    )


def _named(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _check(headers: Mapping[str, str]) -> None:
    """Refuse what cannot be sent, and do not show it."""
    for name, value in headers.items():
        if not (name.isascii() and value.isascii() and value.isprintable()):
            raise ConfigurationError(f"The header {name!r} must be printable ASCII on one line.")


def _response(session: Session, request: Request, url: str, reply: HttpReply) -> RawResponse[Any]:
    if not is_success(reply):
        raise error_of(reply, session.shown(url), session.surroundings.now())
    return RawResponse(
        reply.status,
        reply.headers,
        _parsed(request, reply, session.shown(url)),
        reply.body,
        request.idempotency_key,
    )


def _parsed(request: Request, reply: HttpReply, place: str) -> Any:
    if request.is_json and (request.method == "HEAD" or reply.status == NO_CONTENT):
        return None
    check_plain(reply, place)
    if not request.is_json:
        return reply.body
    return data_of(reply, place)
