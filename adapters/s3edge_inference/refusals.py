"""
What an answer of a GPU server that is no success means: for the task, for the server, for the operator.

One table in one place::

    400                    the task ends: the image or the prompt cannot be used
    429, 502, 503, 504     tried again
    401, 403               the task ends, and the operator is told to compare the keys
    anything else          the task ends, and the operator is told the status

A 500 is what a server answers that an image made stumble, and also one that is broken: it is in doubt,
until the server is asked something that is about nobody's image.
"""

import re
from http import HTTPStatus

import msgspec
from attrs import frozen

from s3edge.errors import Code, EdgeError
from s3edge.values import Json
from s3edge_aiohttp import Answer
from s3edge_inference.servers import Verdict


PASSING = frozenset({429, 502, 503, 504})

REFUSED_KEY = frozenset({401, 403})

_FAULTS_OF_SERVER = frozenset({401, 403, 404, 405})
"""Every request would get them: another key, another address. The other 4xx are about one request."""

MAX_MESSAGE_LENGTH = 200

MAX_RETRY_AFTER_S = 3600

_READ_BYTES = 16 * 1024
"""What a refusal says stands at its beginning."""

_MESSAGE_NAMES = ("error", "detail", "message")

_NOT_LOADED = re.compile(rb"model[ _]+(?:is[ _]+)?not[ _]+(?:yet[ _]+)?loaded", re.IGNORECASE)

_UNSAFE = re.compile(
    r"""//  | www\.          # addresses,
    | [?&;][^\s=]+=        # their queries, which may be signed,
    | \d+\.\d+\.\d+\.\d+   # hosts of the operator's network,
    | [<>{}\\=]            # what is no sentence,
    | \S{21,}              # and words that are none: keys, tokens
    """,
    re.IGNORECASE | re.VERBOSE,
)


@frozen
class Refused:
    """
    What an answer means.

    Attributes:
        error: For the task.
        verdict: On the server.
        advice: For the operator's log, after the server's name; ``None`` when there is nothing to do.
    """

    error: EdgeError
    verdict: Verdict
    advice: str | None


def refused(answer: Answer) -> Refused:
    """Return what an answer means whose status is not 200."""
    status = answer.status
    if status == HTTPStatus.BAD_REQUEST:
        error = EdgeError(Code.INVALID_REQUEST, _said(answer.body))
        return Refused(error, Verdict.WELL, None)
    if status in PASSING:
        return _passing(answer)
    if status in REFUSED_KEY:
        advice = f"refuses the key (status {status}): compare API_SECRET_KEY on both sides"
    else:
        advice = (
            f"answers with status {status}: see its log, and compare its address in the settings"
        )
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        verdict = Verdict.DOUBTED
    elif status not in range(400, 500) or status in _FAULTS_OF_SERVER:
        verdict = Verdict.FAILED
    else:
        verdict = Verdict.WELL
    error = EdgeError(Code.INFERENCE_FAILED, "The model could not be run.")
    return Refused(error, verdict, advice)


def _passing(answer: Answer) -> Refused:
    retry_after_s = _retry_after_s(answer)
    if _NOT_LOADED.search(answer.body[:_READ_BYTES]):
        code, message = Code.MODEL_NOT_LOADED, "The model is not loaded yet; try again."
    else:
        code, message = Code.SERVICE_UNAVAILABLE, "The GPU server has no room now; try again."
    # A server that says when, or why, works. A bare 5xx may be a proxy in front of a dead one.
    is_polite = (
        code is Code.MODEL_NOT_LOADED
        or answer.status == HTTPStatus.TOO_MANY_REQUESTS
        or (answer.status == HTTPStatus.SERVICE_UNAVAILABLE and retry_after_s is not None)
    )
    return Refused(
        EdgeError(code, message, retryable=True, retry_after_s=retry_after_s),
        Verdict.BUSY if is_polite else Verdict.FAILED,
        None if is_polite else f"answers with status {answer.status}",
    )


def _retry_after_s(answer: Answer) -> int | None:
    """Return the whole seconds of ``Retry-After``; its other form, a date, depends on two clocks."""
    text = answer.headers.get("retry-after", "").strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_RETRY_AFTER_S))):
        return None
    return min(int(text), MAX_RETRY_AFTER_S)


def _said(body: bytes) -> str:
    """Return what a refusal says of the image or the prompt, if users may read it."""
    fixed = "The GPU server cannot use this image or prompt."
    try:
        document = msgspec.json.decode(body[:_READ_BYTES])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return fixed
    text = _text_in(document)
    is_safe = (
        text.isprintable() and 0 < len(text) <= MAX_MESSAGE_LENGTH and _UNSAFE.search(text) is None
    )
    return text if is_safe else fixed


def _text_in(document: Json) -> str:
    """Return the text under the usual names, at the top or one level below; a sentence before a code."""
    if not isinstance(document, dict):
        return ""
    values = [document.get(name) for name in _MESSAGE_NAMES]
    nested = [
        value.get(name) for value in values if isinstance(value, dict) for name in _MESSAGE_NAMES
    ]
    texts = [value.strip() for value in (*values, *nested) if isinstance(value, str)]
    return next((text for text in texts if " " in text), next(filter(None, texts), ""))
