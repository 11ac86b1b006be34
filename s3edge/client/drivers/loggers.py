"""Of this client's requests the HTTP library logs nothing: it would log addresses with signatures."""

import logging
from contextvars import ContextVar


ours: ContextVar[bool] = ContextVar("s3edge_client_call", default=False)
"""Whether a request of this client's is on its way."""

LOGGERS = (
    "httpx",
    *(f"httpcore.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")),
)
"""httpx logs whole URLs; httpcore, beneath it, headers at DEBUG: a redirect's ``Location``."""


class _NotOurs(logging.Filter):
    """Keeps the client's own requests out; others who use the library log as before."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - the signature is given
        return not ours.get()


for _name in LOGGERS:
    # One by one: a logger's filter does not see what its children log.
    logging.getLogger(_name).addFilter(_NotOurs())
