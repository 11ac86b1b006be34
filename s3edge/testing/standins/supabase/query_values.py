"""What a PostgREST query string asks for, once it is parsed."""

from collections.abc import Sequence
from enum import StrEnum

from attrs import frozen


@frozen
class Filter:
    """
    A condition on one column.

    Attributes:
        column: Its name.
        negated: Whether what does not fulfil it is meant.
        operator: As PostgREST calls it, such as ``eq`` or ``in``.
        value: What to compare with; for ``in`` a sequence.
        quantifier: ``any`` or ``all`` of an array, or ``None`` for a plain value.
    """

    column: str
    negated: bool
    operator: str
    value: str | Sequence[str]
    quantifier: str | None = None


@frozen
class Logic:
    """
    Conditions joined together.

    Attributes:
        negated: Whether what does not fulfil them is meant.
        operator: ``and`` or ``or``.
        conditions: At least one.
    """

    negated: bool
    operator: str
    conditions: Sequence["Condition"]


Condition = Filter | Logic


@frozen
class Selected:
    """
    A column of the answer.

    Attributes:
        column: Its name, or ``*``.
        alias: What the answer calls it; ``None`` for its own name.
    """

    column: str
    alias: str | None = None


class Nulls(StrEnum):
    """Where nulls stand in an order."""

    FIRST = "nullsfirst"
    LAST = "nullslast"


@frozen
class OrderTerm:
    """
    A column to sort by.

    Attributes:
        column: Its name.
        descending: Largest first.
        nulls: Where they stand; ``None`` for the database's default.
    """

    column: str
    descending: bool = False
    nulls: Nulls | None = None


@frozen
class Query:
    """
    A whole query string.

    Attributes:
        selected: The columns of the answer.
        conditions: What rows must fulfil, all of it.
        order: What to sort by.
        limit: How many rows at the most; may be negative, as it was sent.
        offset: How many to pass over.
        columns: The columns of the body to use; ``None`` for those that it has.
        on_conflict: The columns that decide whether a row is there; ``None`` for the primary key.
        arguments: Of a function called by GET.
    """

    selected: Sequence[Selected] = (Selected("*"),)
    conditions: Sequence[Condition] = ()
    order: Sequence[OrderTerm] = ()
    limit: int | None = None
    offset: int = 0
    columns: Sequence[str] | None = None
    on_conflict: Sequence[str] | None = None
    arguments: Sequence[tuple[str, str]] = ()
