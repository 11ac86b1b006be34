"""Looks into JSON that anybody may have sent."""

from collections.abc import Mapping, Sequence
from typing import Any, cast


def as_object(value: object) -> Mapping[str, Any]:
    """Return a JSON object; an empty one in the place of anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def as_array(value: object) -> Sequence[Any]:
    """Return a JSON array; an empty one in the place of anything else."""
    return cast("Sequence[Any]", value) if isinstance(value, list) else ()
