"""The JSON body of a request."""

from collections.abc import Sequence
from typing import Any

import msgspec
from attrs import frozen

from s3edge.testing.standins.supabase.refusals import bad_body, not_done


@frozen
class Payload:
    """
    A body, as the database will read it.

    Attributes:
        text: As it was sent, so that no number loses digits here.
        is_object: Whether it is one object, and not an array of them.
        keys: What each object has, in the order of the names.
    """

    text: str
    is_object: bool
    keys: Sequence[str]


def read_payload(
    body: bytes, content_type: str, columns: Sequence[str] | None, *, may_be_empty: bool = False
) -> Payload:
    """
    Return a body that was sent.

    Args:
        body: As it was sent.
        content_type: As its header says; empty means JSON.
        columns: Those that the query string names; the body is then taken as it is.
        may_be_empty: Whether no body is as good as an empty object.

    Raises:
        Refusal: It is not JSON, or its objects differ in their keys.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in {"", "application/json", "application/vnd.pgrst.object+json"}:
        raise not_done(f"bodies of type {media_type}")
    try:
        text = body.decode() or ("{}" if may_be_empty else "")
        content: Any = msgspec.json.decode(text)
    except ValueError:
        raise bad_body("Empty or invalid json") from None
    if isinstance(content, dict):
        keys = sorted(content) if columns is None else sorted(set(columns))
        return Payload(text, is_object=True, keys=keys)
    if not isinstance(content, list):
        return Payload("[]", is_object=False, keys=())
    if columns is not None:
        return Payload(text, is_object=False, keys=sorted(set(columns)))
    first = content[0] if content else {}
    if not isinstance(first, dict) or any(
        not isinstance(each, dict) or each.keys() != first.keys() for each in content
    ):
        raise bad_body("All object keys must match")
    return Payload(text, is_object=False, keys=sorted(first))
