"""Reads query strings, headers and JSON bodies into messages, with errors that say what to do."""

import functools
import re
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec

from s3edge.errors import Code, Detail, EdgeError, invalid
from s3edge.web.http import Request


MAX_JSON_BYTES = 64 * 1024
"""Contract: a JSON body over 64 KiB is PAYLOAD_TOO_LARGE."""

MAX_QUERY_FIELDS = 32

MAX_KEY_CHARACTERS = 255

IDEMPOTENCY_KEY_PATTERN = (
    rf"^([!#-~]([ -~]{{0,{MAX_KEY_CHARACTERS - 2}}}[!-~])?"
    rf'|"[ -~]{{1,{MAX_KEY_CHARACTERS}}}")$'
)
"""Bare, or in one pair of quotes."""

T = TypeVar("T", bound=msgspec.Struct)

_INTEGER = re.compile(r"-?[0-9]{1,100}")
_DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,32})?([eE][+-]?[0-9]{1,3})?")
# msgspec ends a message with the place: "Expected `int` >= 1 - at `$.page`".
_PLACE = re.compile(r"^(?P<message>.*?)(?: - at `\$\.?(?P<field>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(?P<field>[^`]*)`")
_IDEMPOTENCY_KEY = re.compile(IDEMPOTENCY_KEY_PATTERN)


async def read_json(request: Request, message: type[T]) -> T:
    """
    Return the JSON body as a message.

    Raises:
        EdgeError: ``PAYLOAD_TOO_LARGE``; ``INVALID_REQUEST`` for anything else that is wrong with it.
    """
    body = bytearray()
    async for chunk in request.body:
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise EdgeError(
                Code.PAYLOAD_TOO_LARGE, f"Send at most {MAX_JSON_BYTES // 1024} KiB of JSON."
            )
    try:
        return msgspec.json.decode(body, type=message)
    except msgspec.ValidationError as error:
        raise _invalid_message(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise invalid("body", "The body is not valid JSON.") from None
    except RecursionError:
        raise invalid("body", "The JSON is nested too deeply.") from None


def read_query(request: Request, message: type[T]) -> T:
    """
    Return the query string as a message; unknown names are ignored, a repeated one counts last.

    Raises:
        EdgeError: ``INVALID_REQUEST``.
    """
    try:
        pairs = dict(
            parse_qsl(request.query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
        )
    except ValueError:
        raise invalid("query", f"Use at most {MAX_QUERY_FIELDS} parameters.") from None
    numbers = _numbers(message)
    values = {name: _as_number(value, numbers.get(name)) for name, value in pairs.items()}
    try:
        return msgspec.convert(values, message)
    except msgspec.ValidationError as error:
        raise _invalid_message(str(error)) from None


def read_idempotency_key(request: Request) -> str | None:
    """
    Return the Idempotency-Key, bare, or ``None``.

    draft-ietf-httpapi-idempotency-key-header-07 makes it a Structured-Field string, in quotes; most
    clients send it without.

    Raises:
        EdgeError: ``INVALID_REQUEST`` unless it is 1 to 255 printable ASCII characters.
    """
    value = request.headers.get("idempotency-key")
    if value is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(value):
        raise invalid(
            "Idempotency-Key",
            f"Use 1 to {MAX_KEY_CHARACTERS} printable ASCII characters, bare or in quotes.",
        )
    return value[1:-1] if value.startswith('"') else value


@functools.cache
def _numbers(message: type[msgspec.Struct]) -> dict[str, re.Pattern[str]]:
    """Return how each field of a message that is a number is spelt."""
    info = msgspec.inspect.type_info(message)
    fields = info.fields if isinstance(info, msgspec.inspect.StructType) else ()
    spellings = {field.encode_name: _spelling(field.type) for field in fields}
    return {name: spelling for name, spelling in spellings.items() if spelling is not None}


def _spelling(kind: msgspec.inspect.Type) -> re.Pattern[str] | None:
    if isinstance(kind, msgspec.inspect.Metadata):
        return _spelling(kind.type)
    if isinstance(kind, msgspec.inspect.IntType):
        return _INTEGER
    return _DECIMAL if isinstance(kind, msgspec.inspect.FloatType) else None


def _as_number(text: str, spelling: re.Pattern[str] | None) -> str | int | float:
    """
    Return the number that a text spells where a number is wanted, else the text itself.

    Stricter than msgspec's own conversion, which takes ``1e9`` and ``5.0`` for integers.
    """
    if spelling is None or not spelling.fullmatch(text):
        return text
    return int(text) if spelling is _INTEGER else float(text)


def _invalid_message(text: str) -> EdgeError:
    """Return msgspec's complaint as an error about a field."""
    place = _PLACE.match(text)
    missing = _MISSING.search(text)
    message = place["message"] if place else text
    field = missing["field"] if missing else (place["field"] if place else None)
    message = message.replace("`", "")
    if not field:
        return EdgeError(
            Code.INVALID_REQUEST, f"{message}.", details=[Detail("body", f"{message}.")]
        )
    return invalid(field, f"{message}.")
