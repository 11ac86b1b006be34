"""What all calls of a client share: where the server is, who asks, and how patient they are."""

import os
import re
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from types import UnionType
from typing import TypeAlias
from urllib.parse import urlsplit

from attrs import define, evolve, field, frozen

from s3edge.client.effects import Flow, ask
from s3edge.client.errors import ConfigurationError
from s3edge.client.surroundings import Surroundings


BASE_URL_VARIABLE = "S3EDGE_BASE_URL"
TOKEN_VARIABLE = "S3EDGE_TOKEN"  # noqa: S105 - the name, not the token

IN_PROCESS_URL = "http://s3edge.test"
"""Where an application in this process is, by default (RFC 6761, section 6.2: nobody else is there)."""

MAX_RETRIES = 4
"""By default, besides the first attempt."""

API_PATH = "/api/v1"
"""Where the API is under a server's address."""

DEFAULT_PORTS = {"http": 80, "https": 443}

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
"""A URL and no path; a path may have one in its query."""

_SCHEME = "bearer "
"""Of HTTP's authentication (RFC 6750); the client writes it itself."""

Token: TypeAlias = str | Callable[[], str] | Callable[[], Awaitable[str]]
"""An access token, or what returns one: called at first use, and again once on a 401."""


class FromEnvironment(Enum):
    """Stands where nothing was given; ``None`` and ``""`` are given, by mistake most likely."""

    FROM_ENVIRONMENT = "from the environment"

    def __repr__(self) -> str:
        """Return what a signature shows."""
        return self.name


FROM_ENVIRONMENT = FromEnvironment.FROM_ENVIRONMENT


def _is_number(value: object, kind: type | UnionType) -> bool:
    """Return whether a value is a number; Python takes ``True`` for one."""
    return isinstance(value, kind) and not isinstance(value, bool)


@frozen
class Timeout:
    """
    How long a call may take.

    Attributes:
        connect: For a connection, in seconds.
        read: For the next sign of life of the server's, in seconds; for the whole answer of an ASGI
            application in this process.
        total: For the call with all its retries, in seconds. ``Client`` cannot interrupt a server that
            sends the head of an answer byte by byte; ``AsyncClient`` can. Neither can interrupt a WSGI
            application in this process: with ``Client`` it is waited for, with ``AsyncClient`` it goes
            on alone.

    Raises:
        ConfigurationError: One of them is no number above 0.
    """

    connect: float = 5.0
    read: float = 60.0
    total: float = 300.0

    def __attrs_post_init__(self) -> None:
        """Refuse what is no time."""
        for seconds in (self.connect, self.read, self.total):
            if not (_is_number(seconds, int | float) and seconds > 0):
                raise ConfigurationError(
                    f"A time-out must be a number of seconds above 0, not {seconds!r}."
                )


@frozen
class Secret:
    """
    A token on its way to a header; tools that show a traceback's variables do not show it.

    Attributes:
        value: What is sent.
    """

    value: str = field(repr=False)


@define
class TokenHolder:
    """
    The token that is in use, and where the next one comes from.

    Attributes:
        source: What the user gave.
    """

    source: Token | None = field(repr=False)
    _current: Secret | None = field(default=None, init=False, repr=False)

    @property
    def can_renew(self) -> bool:
        """Whether there may be another token than the one in use."""
        return callable(self.source)

    def current(self) -> Flow[Secret | None]:
        """
        Return the token in use.

        Raises:
            ConfigurationError: It is none.
        """
        if not callable(self.source):
            return None if self.source is None else Secret(self.source)
        if self._current is None:
            token = as_token((yield from ask(self.source)))
            self._current = None if token is None else Secret(token)
            del token
        return self._current

    def renewed(self, refused: Secret | None) -> Flow[Secret | None]:
        """Return a token in the place of one that was refused, which somebody else may have done."""
        if self._current == refused:
            self._current = None
        return (yield from self.current())


@frozen
class Session:
    """
    One client's settings.

    Attributes:
        base_url: Where the server is, with the prefix it is mounted under, without a slash at the end.
        token: Who asks.
        timeout: How long a call may take.
        max_retries: How often a call is repeated at the most.
        headers: Sent with every call to the server itself.
        surroundings: Time, chance and pauses.
    """

    base_url: str
    token: TokenHolder
    timeout: Timeout = Timeout()
    max_retries: int = MAX_RETRIES
    headers: Mapping[str, str] = field(factory=dict[str, str], repr=False)
    surroundings: Surroundings = field(factory=Surroundings, repr=False)

    def with_options(
        self,
        *,
        timeout: Timeout | float | None,
        max_retries: int | None,
        headers: Mapping[str, str] | None,
    ) -> "Session":
        """Return the same settings but for those that are given."""
        return evolve(
            self,
            timeout=self.timeout if timeout is None else as_timeout(timeout),
            max_retries=self.max_retries if max_retries is None else as_retries(max_retries),
            headers={**self.headers, **(headers or {})},
        )

    def url_of(self, target: str) -> str:
        """Return the absolute URL of a path; one that is absolute already stays what it is."""
        if _ABSOLUTE.match(target):
            return target
        return f"{self.base_url}/{target.lstrip('/')}"

    def is_own(self, url: str) -> bool:
        """
        Return whether a URL is of the server's own origin: only there may a token go.

        Raises:
            ConfigurationError: It is no URL.
        """
        try:
            return origin_of(url) == origin_of(self.base_url)
        except ValueError:
            raise ConfigurationError("The URL cannot be used.") from None

    def shown(self, url: str) -> str:
        """Return what may be told of a URL: without its query, and of other servers' the origin only."""
        scheme, host, port = origin_of(url)
        origin = f"{scheme}://{host}" + ("" if port == DEFAULT_PORTS.get(scheme) else f":{port}")
        return origin + urlsplit(url).path if self.is_own(url) else origin


def open_session(
    *,
    base_url: str | FromEnvironment,
    token: Token | FromEnvironment | None,
    timeout: Timeout | float | None,
    max_retries: int,
    headers: Mapping[str, str] | None,
    surroundings: Surroundings | None,
) -> Session:
    """
    Return a session from what a user gave and, where they gave nothing, the environment.

    Raises:
        ConfigurationError: Address or token is missing or none.
    """
    address = os.environ.get(BASE_URL_VARIABLE) if base_url is FROM_ENVIRONMENT else base_url
    if not isinstance(address, str) or not address:
        raise ConfigurationError(
            f"There is no address of a server; set {BASE_URL_VARIABLE}, or give base_url="
            " (None and '' are none)."
        )
    if token is FROM_ENVIRONMENT:
        token = os.environ.get(TOKEN_VARIABLE) or None
    parts = urlsplit(address)
    try:
        origin_of(address)
    except ValueError:
        raise ConfigurationError("The port in the address of the server is no number.") from None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise ConfigurationError("The address of the server must begin with http:// or https://.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError(
            "The address of the server must be without user, password, query and fragment."
        )
    address = address.rstrip("/")
    if address.endswith(API_PATH):
        raise ConfigurationError(
            f"The address of the server must be without {API_PATH}, which each call adds; leave it out."
        )
    return Session(
        base_url=address,
        token=TokenHolder(token if callable(token) else as_token(token)),
        timeout=as_timeout(timeout),
        max_retries=as_retries(max_retries),
        headers=dict(headers or {}),
        surroundings=surroundings or Surroundings(),
    )


def as_token(token: object) -> str | None:
    """
    Return an access token as it is sent, or ``None`` where there is none.

    White space around it is left out: files end in a line's end.

    Raises:
        ConfigurationError: It is none; it is not shown.
    """
    if token is None:
        return None
    if not isinstance(token, str):
        raise ConfigurationError(
            f"The access token must be text, or a function that returns it; not {type(token).__name__}."
        )
    token = token.strip()
    if not token:
        raise ConfigurationError("The access token is empty; give None for a client without one.")
    if token[: len(_SCHEME)].lower() == _SCHEME:
        raise ConfigurationError(
            "The access token begins with 'Bearer'; give it without 'Bearer '."
        )
    if not (token.isascii() and token.isprintable()):
        raise ConfigurationError(
            "The access token must be printable ASCII on one line; what was given is not the token alone."
        )
    return token


def as_timeout(timeout: Timeout | float | None) -> Timeout:
    """
    Return a time-out; a number is the total one.

    Raises:
        ConfigurationError: It is no number above 0.
    """
    if timeout is None:
        return Timeout()
    return timeout if isinstance(timeout, Timeout) else Timeout(total=timeout)


def as_retries(max_retries: int) -> int:
    """
    Return how often a call is repeated at the most.

    Raises:
        ConfigurationError: It is no whole number from 0.
    """
    if not (_is_number(max_retries, int) and max_retries >= 0):
        raise ConfigurationError(
            f"max_retries must be a whole number, 0 or above, not {max_retries!r}."
        )
    return max_retries


def origin_of(url: str) -> tuple[str, str, int | None]:
    """
    Return scheme, host and port of a URL (RFC 6454, section 4).

    Raises:
        ValueError: It is no URL.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or DEFAULT_PORTS.get(scheme)
