"""The key that a gateway sends and its GPU servers expect."""

import re
from collections.abc import Mapping


_SENDABLE = re.compile(r"[!-~]+")


def api_key(vendor: Mapping[str, str]) -> str:
    """
    Return ``API_SECRET_KEY`` as either side has it, without blanks around it; empty when it is not set.

    Raises:
        ValueError: No header carries it.
    """
    key = vendor.get("API_SECRET_KEY", "").strip()
    if key and _SENDABLE.fullmatch(key) is None:
        raise ValueError("API_SECRET_KEY contains spaces or non-ASCII characters; copy it again")
    return key
