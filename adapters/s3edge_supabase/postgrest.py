"""
Calls PostgREST, and tells its answers apart.

Written for PostgREST 14, which Supabase runs. https://docs.postgrest.org/en/v14/references/errors.html
"""

import logging
import random
import re
from collections.abc import Mapping
from typing import Any

import anyio
import msgspec
from attrs import frozen

from s3edge.errors import EdgeError, unavailable
from s3edge_aiohttp import Answer, HttpClient, NoAnswerError


BUDGET_S = 3.2
"""
What one call may take with all its attempts: an app hears of an outage within 5 seconds, also when the
sign-in keys had to be waited for before.
"""

MAX_ATTEMPTS = 3

_FIRST_DELAY_S = 0.1

_ISSUED_AT_FUTURE_DELAY_S = 1.2
"""
Supabase's gateway signs a short-lived token whose time PostgREST may not have reached.

Seen in 2026 and never promised to be gone: PostgREST issues 5172 and 5196.
"""

_UNAVAILABLE_STATUSES = frozenset({500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 530})

_ROLLED_BACK = frozenset({"40001", "40P01", "57014", "55P03"})
"""Serialization failure, deadlock, timeouts: the transaction left nothing, whatever it was."""

_LIKE_A_SECRET = re.compile(r"[\w+/=.~-]{20,}|sb_\S+|eyJ\S+")

_COUNT = re.compile(r"[0-9]{1,18}")

_log = logging.getLogger(__name__)


class Refusal(Exception):  # noqa: N818 - an answer, which the caller knows what to make of
    """
    PostgREST, or the database behind it, said no.

    Attributes:
        status: Of HTTP.
        code: PostgREST's or Postgres's, such as ``PGRST301`` or ``PT402``; empty from a gateway.
        reason: The message. Never shown to users, and ``details`` least of all: they hold rows.
        details: More, as text.
    """

    def __init__(self, status: int, code: str, reason: str, details: str) -> None:
        super().__init__(status, code)
        self.status = status
        self.code = code
        self.reason = reason
        self.details = details

    def __str__(self) -> str:
        """Return what may be logged; a gateway may repeat the key that it refuses."""
        reason = _LIKE_A_SECRET.sub("...", self.reason)
        return f"status {self.status}, code {self.code[:20] or 'none'}, {reason[:200]!r}"


@frozen
class Rows:
    """
    The rows of a query.

    Attributes:
        rows: As JSON.
        total: How many match in all, when that was asked.
    """

    rows: list[Any]
    total: int | None


class Postgrest:
    """
    One project's REST endpoint.

    Args:
        http: The connections.
        url: The project's, without a trailing slash.
    """

    def __init__(self, http: HttpClient, url: str) -> None:
        self._http = http
        self._base = f"{url}/rest/v1"

    async def rows(self, query: str, headers: Mapping[str, str], *, counted: bool = False) -> Rows:
        """
        Return the rows of a query such as ``table?select=a&b=eq.c``, already encoded.

        Args:
            query: Table, columns, filters, order and limits.
            headers: Who asks.
            counted: Whether to count all that match, beyond the limit.

        Raises:
            Refusal: The query was refused.
            EdgeError: ``SERVICE_UNAVAILABLE``.
        """
        sent = {**headers, "Accept": "application/json"}
        if counted:
            sent["Prefer"] = "count=exact"
        try:
            answer = await self._send("GET", f"{self._base}/{query}", sent, None, repeatable=True)
        except Refusal as refusal:
            if counted and refusal.code == "PGRST103":
                # Beyond the end there are no rows, and how many there are is said all the same.
                return Rows([], _total(refusal.details))
            raise
        rows = _json(answer)
        if not isinstance(rows, list):
            raise _garbled()
        return Rows(rows, _total(answer.headers.get("content-range", "")) if counted else None)

    async def call(
        self,
        function: str,
        arguments: Mapping[str, Any],
        headers: Mapping[str, str],
        *,
        repeatable: bool,
    ) -> Any:
        """
        Call a function and return its result as JSON; ``None`` for one that returns nothing.

        Args:
            function: Its name.
            arguments: By name.
            headers: Who calls.
            repeatable: Whether calling it twice does no more than once.

        Raises:
            Refusal: The call was refused.
            EdgeError: ``SERVICE_UNAVAILABLE``.
        """
        answer = await self._send(
            "POST",
            f"{self._base}/rpc/{function}",
            {**headers, "Accept": "application/json", "Content-Type": "application/json"},
            msgspec.json.encode(arguments),
            repeatable=repeatable,
        )
        return _json(answer) if answer.body else None

    async def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        repeatable: bool,
    ) -> Answer:
        """Send a request, again where that is safe and there is time, and return a good answer."""
        ends_at = anyio.current_time() + BUDGET_S
        attempt = 0
        while True:
            attempt += 1
            left_s = ends_at - anyio.current_time()
            try:
                answer = await self._http.fetch(
                    method, url, headers=headers, body=body, timeout_s=max(left_s, 0.1)
                )
                return _checked(answer)
            except NoAnswerError as error:
                may_repeat = repeatable or not error.may_have_acted
                fault, delay_s = error.reason, _delay_s(attempt)
            except Refusal as refusal:
                if not _is_passing(refusal):
                    raise
                may_repeat = repeatable or refusal.code in _ROLLED_BACK
                fault, delay_s = str(refusal), _delay_s(attempt)
                if refusal.code == "PGRST303":
                    delay_s = _ISSUED_AT_FUTURE_DELAY_S
            if (
                not may_repeat
                or attempt == MAX_ATTEMPTS
                or anyio.current_time() + delay_s >= ends_at
            ):
                _log.warning(
                    "the database does not answer: given up after attempt %d: %s", attempt, fault
                )
                raise unavailable("The database does not answer; try again in a moment.")
            await anyio.sleep(delay_s)


def _checked(answer: Answer) -> Answer:
    """
    Return an answer that is one of PostgREST's good ones.

    Raises:
        Refusal: It is not.
    """
    if answer.status in {200, 201, 204, 206}:
        if answer.body and not answer.headers.get("content-type", "").startswith(
            ("application/json", "application/vnd.pgrst")
        ):
            # A login page, a captive portal: somebody else answers.
            raise Refusal(502, "", "the answer is not JSON", "")
        return answer
    try:
        error: Any = msgspec.json.decode(answer.body)
    except (ValueError, RecursionError):
        error = None
    if not isinstance(error, dict):
        error = {}
    code, reason, details = (
        value if isinstance(value := error.get(name), str) else ""
        for name in ("code", "message", "details")
    )
    if code == "PGRST103":
        details = answer.headers.get("content-range", "")
    raise Refusal(answer.status, code, reason, details)


def _is_passing(refusal: Refusal) -> bool:
    """Return whether the same request may be answered well in a moment."""
    if refusal.code == "PGRST303":
        return refusal.reason == "JWT issued at future"
    return refusal.status in _UNAVAILABLE_STATUSES or refusal.status == 429  # noqa: PLR2004


def _delay_s(attempt: int) -> float:
    return _FIRST_DELAY_S * 2.0 ** (attempt - 1) * (1 + random.random())  # noqa: S311 - jitter


def _json(answer: Answer) -> Any:
    try:
        return msgspec.json.decode(answer.body)
    except (ValueError, RecursionError):
        raise _garbled() from None


def _garbled() -> EdgeError:
    _log.warning("the database's answer makes no sense")
    return unavailable("The database does not answer properly; try again in a moment.")


def _total(content_range: str) -> int | None:
    """Return the number behind the slash of a ``Content-Range``."""
    total = content_range.rpartition("/")[2]
    return int(total) if _COUNT.fullmatch(total) else None
