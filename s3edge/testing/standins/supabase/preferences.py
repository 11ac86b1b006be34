"""
What a ``Prefer`` header asks for.

https://docs.postgrest.org/en/v14/references/api/preferences.html
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

from attrs import frozen

from s3edge.testing.standins.supabase.refusals import Refusal, not_done


class Return(StrEnum):
    """What a change answers with."""

    REPRESENTATION = "return=representation"
    MINIMAL = "return=minimal"
    HEADERS = "return=headers-only"


class Count(StrEnum):
    """How rows are counted."""

    EXACT = "count=exact"
    PLANNED = "count=planned"
    ESTIMATED = "count=estimated"


class Resolution(StrEnum):
    """What becomes of a row that is there already."""

    MERGE = "resolution=merge-duplicates"
    IGNORE = "resolution=ignore-duplicates"


class Missing(StrEnum):
    """What becomes of a column that a body leaves out."""

    DEFAULT = "missing=default"
    NULL = "missing=null"


class Handling(StrEnum):
    """What becomes of a preference that is not known."""

    STRICT = "handling=strict"
    LENIENT = "handling=lenient"


_MAX_AFFECTED = "max-affected="

# Known to PostgREST; Supabase does not enable it.
_IGNORED = frozenset({"tx=commit", "tx=rollback"})

E_ = TypeVar("E_", bound=StrEnum)


@frozen
class Preferences:
    """
    A request's preferences; ``None`` for what it does not say.

    Attributes:
        returned: What a change answers with.
        count: How rows are counted.
        resolution: What becomes of a row that is there already.
        missing: What becomes of a column that a body leaves out.
        handling: What becomes of a preference that is not known.
        max_affected: How many rows may be changed at the most.
    """

    returned: Return | None = None
    count: Count | None = None
    resolution: Resolution | None = None
    missing: Missing | None = None
    handling: Handling | None = None
    max_affected: int | None = None

    @property
    def counted(self) -> bool:
        """Whether rows are counted."""
        return self.count is not None

    @property
    def missing_is_default(self) -> bool:
        """Whether a column that a body leaves out gets its default."""
        return self.missing is Missing.DEFAULT

    @property
    def enforced_max_affected(self) -> int | None:
        """How many rows may be changed at the most; a lenient request's limit is ignored."""
        return self.max_affected if self.handling is Handling.STRICT else None

    def applied(self, *names: str) -> str:
        """Return the ``Preference-Applied`` header for those of these fields that were said."""
        shown = {name: getattr(self, name) for name in names}
        if "max_affected" in shown:
            most = self.enforced_max_affected
            shown["max_affected"] = None if most is None else f"{_MAX_AFFECTED}{most}"
        return ", ".join(value for value in shown.values() if value is not None)


def parse_preferences(headers: Sequence[str]) -> Preferences:
    """
    Return the preferences of a request; of two that disagree, the first counts.

    Raises:
        Refusal: One is not known and handling is strict (``PGRST122``), or is not done here.
    """
    said = [each.strip() for header in headers for each in header.split(",") if each.strip()]
    preferences = Preferences(
        returned=_first(Return, said),
        count=_first(Count, said),
        resolution=_first(Resolution, said),
        missing=_first(Missing, said),
        handling=_first(Handling, said),
        max_affected=_max_affected(said),
    )
    if preferences.count in {Count.PLANNED, Count.ESTIMATED}:
        raise not_done(f"{preferences.count}; count=exact is done")
    if any(each.startswith("timezone=") for each in said):
        raise not_done("the timezone preference")
    unknown = [each for each in said if not _is_known(each)]
    if unknown and preferences.handling is Handling.STRICT:
        raise Refusal(
            400,
            "PGRST122",
            "Invalid preferences given with handling=strict",
            details=f"Invalid preferences: {', '.join(unknown)}",
        )
    return preferences


def _first(kind: type[E_], said: Sequence[str]) -> E_ | None:
    return next((kind(each) for each in said if each in set(kind)), None)


def _max_affected(said: Sequence[str]) -> int | None:
    for each in said:
        number = each.removeprefix(_MAX_AFFECTED)
        if number != each:
            return int(number) if number.isdigit() else None
    return None


def _is_known(preference: str) -> bool:
    kinds: Sequence[type[StrEnum]] = (Return, Count, Resolution, Missing, Handling)
    return (
        preference in _IGNORED
        or preference.startswith(_MAX_AFFECTED)
        or any(preference in set(kind) for kind in kinds)
    )
