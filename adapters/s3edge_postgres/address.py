"""Where a Postgres is, as the setting says it: libpq's URL, and two parameters of our own."""

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

import psycopg
from attrs import field, frozen
from psycopg.conninfo import conninfo_to_dict


DEFAULT_POOL_SIZE = 20
MAX_POOL_SIZE = 1_000

CONNECT_TIMEOUT_S = 2
"""How long making a connection may take; libpq knows no shorter one."""

POOL_SIZE = "pool_size"
POOLER = "pooler"
TRANSACTION = "transaction"

_DEFAULTS: Mapping[str, str | int] = {
    "application_name": "s3edge",
    "connect_timeout": CONNECT_TIMEOUT_S,
    # A peer that vanished without a word is noticed by the kernel, here and in whoever only listens.
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    # Milliseconds; where data is on its way, keepalives do not count.
    "tcp_user_timeout": 10_000,
}
"""What the URL can say otherwise. https://www.postgresql.org/docs/current/libpq-connect.html"""

_MALFORMED = (
    "write postgresql://user:password@host:5432/database, special characters of the password as %XX,"
    " and behind the ? only what libpq knows, pool_size or pooler"
)


@frozen
class PostgresAddress:
    """
    How to reach a database.

    Attributes:
        parameters: libpq's connection parameters by name; hold the password.
        pool_size: How many connections one process keeps at the most.
        is_pooled: Whether a pooler in transaction mode stands between, where no session lasts longer
            than a transaction: nothing can be prepared, set or listened for.
    """

    parameters: Mapping[str, str | int] = field(repr=False)
    pool_size: int = DEFAULT_POOL_SIZE
    is_pooled: bool = False


def parse_address(url: str) -> PostgresAddress:
    """
    Return what a URL says.

    Args:
        url: ``postgresql://...?pool_size=20&pooler=transaction``; the rest is libpq's own.

    Raises:
        ValueError: It cannot be read; the message is one line and repeats nothing of it.
    """
    base, _, query = url.partition("?")
    own, rest = {}, []
    for part in query.split("&") if query else []:
        name = part.partition("=")[0]
        if name in {POOL_SIZE, POOLER}:
            own[name] = parse_qsl(part, keep_blank_values=True)[0][1]
        else:
            rest.append(part)
    try:
        said = conninfo_to_dict(f"{base}?{'&'.join(rest)}" if rest else base)
    except psycopg.ProgrammingError:
        # libpq's own words repeat the piece that it does not understand.
        raise ValueError(_MALFORMED) from None
    parameters = {name: value for name, value in said.items() if value is not None}
    if base.count("@") > 1 or not _names_a_server(parameters):
        raise ValueError(_MALFORMED)
    return PostgresAddress(
        {**_DEFAULTS, **parameters},
        _pool_size(own.get(POOL_SIZE, str(DEFAULT_POOL_SIZE))),
        _is_pooled(own.get(POOLER)),
    )


def _names_a_server(parameters: Mapping[str, str | int]) -> bool:
    """Return whether no piece of a badly written password is taken for a host or a port."""
    hosts, ports = (str(parameters.get(name, "")) for name in ("host", "port"))
    return "@" not in hosts and all(port.isdigit() or not port for port in ports.split(","))


def _pool_size(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= MAX_POOL_SIZE:
        message = f"{POOL_SIZE}: write a whole number from 1 to {MAX_POOL_SIZE}"
        raise ValueError(message)
    return int(text)


def _is_pooled(text: str | None) -> bool:
    if text not in {None, TRANSACTION}:
        message = f"{POOLER}: write {TRANSACTION}, or leave it out for a direct connection"
        raise ValueError(message)
    return text is not None
