"""Log lines: for people on a terminal, JSON elsewhere; each with the id of its request."""

import logging
import sys

import structlog

from s3edge.web.app import REQUEST_ID


_LIBRARIES = (
    "PIL",
    "aiohttp",
    "asyncio",
    "boto3",
    "botocore",
    "httpcore",
    "httpx",
    "psycopg",
    "python_multipart",
    "urllib3",
)


def configure_logs(level: str) -> None:
    """
    Send every log line of the process to standard error.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
    """
    on_terminal = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _add_request_id,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[structlog.typing.Processor] = (
        # Not its own way of showing traces, which shows what every variable holds: keys and passwords.
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if on_terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Libraries' own news is not the operator's; some of it holds signatures and keys.
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    # Its errors are of a database that is away, with traces; ours are one line each.
    logging.getLogger("procrastinate").setLevel(logging.CRITICAL)
    # Says of each attempt of an outage what ours says once of all.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


def _add_request_id(
    logger: object,  # noqa: ARG001 - structlog's signature
    method: str,  # noqa: ARG001 - likewise
    event: structlog.typing.EventDict,
) -> structlog.typing.EventDict:
    event["request_id"] = REQUEST_ID.get()
    return event
