"""
Reads a PostgREST query string.

Values of a plain filter (``col=eq.value``) are taken as they are, to the end; those in lists and in
``and``/``or`` may be quoted. https://docs.postgrest.org/en/v14/references/api/url_grammar.html
"""

from collections.abc import Sequence
from urllib.parse import unquote_plus

from s3edge.testing.standins.supabase.query_values import (
    Condition,
    Filter,
    Logic,
    Nulls,
    OrderTerm,
    Query,
    Selected,
)
from s3edge.testing.standins.supabase.refusals import not_done
from s3edge.testing.standins.supabase.text_reader import TextReader


QUANTIFIABLE = frozenset({"eq", "gt", "gte", "lt", "lte", "like", "ilike", "match", "imatch"})
"""Operators that can be asked of any or all elements of an array."""

SIMPLE = frozenset({"neq", "isdistinct", "cs", "cd", "ov", "sl", "sr", "nxr", "nxl", "adj"})
FULL_TEXT = frozenset({"fts", "plfts", "phfts", "wfts"})
IS_VALUES = frozenset({"null", "not_null", "true", "false", "unknown"})

_OPERATORS = QUANTIFIABLE | SIMPLE | FULL_TEXT | {"in", "is"}
_LOGIC = ("and", "or")


def parse_query(raw: str, *, takes_arguments: bool = False) -> Query:
    """
    Return what a query string asks for.

    Args:
        raw: As it was sent, still percent-encoded.
        takes_arguments: Whether a parameter without an operator is an argument of a function.

    Raises:
        Refusal: It is malformed (``PGRST100``), or asks for what the stand-in does not do.
    """
    single: dict[str, str] = {}
    conditions: list[Condition] = []
    arguments: list[tuple[str, str]] = []
    for name, value in _pairs(raw):
        key = name.rpartition(".")[2]
        if name in {"select", "columns", "on_conflict", "order", "limit", "offset"}:
            single.setdefault(name, value)
        elif key in _LOGIC and name in {key, f"not.{key}"}:
            conditions.append(_logic_parameter(name, value))
        elif takes_arguments and not _has_operator(value):
            arguments.append((name, value))
        else:
            conditions.append(Filter(_column_of_parameter(name), *_plain_condition(value)))
    return Query(
        selected=_selection(single.get("select", "*")),
        conditions=conditions,
        order=_order(single["order"]) if single.get("order") else (),
        limit=_integer(single.get("limit", "")),
        offset=max(0, _integer(single.get("offset", "")) or 0),
        columns=_names("columns parameter", single.get("columns")),
        on_conflict=_names("on_conflict parameter", single.get("on_conflict")),
        arguments=arguments,
    )


def _pairs(raw: str) -> Sequence[tuple[str, str]]:
    """Return the parameters that have a value, in order; a plus is a space."""
    pairs = []
    for part in raw.split("&"):
        name, equals, value = part.partition("=")
        if equals:
            pairs.append((unquote_plus(name), unquote_plus(value)))
    return pairs


def _integer(text: str) -> int | None:
    """Return the number; what is none is as good as absent."""
    try:
        return int(text)
    except ValueError:
        return None


def _has_operator(value: str) -> bool:
    first = value.partition(".")[0].partition("(")[0]
    return "." in value and (first == "not" or first in _OPERATORS)


def _column_of_parameter(name: str) -> str:
    reader = TextReader("tree path", name)
    column = reader.name()
    if reader.at(".") or reader.at("->"):
        raise not_done(f"filters on JSON paths and embedded resources ({name})")
    reader.end()
    return column


def _plain_condition(value: str) -> tuple[bool, str, str | Sequence[str], str | None]:
    """Return whether it is negated, the operator, the value and the quantifier."""
    reader = TextReader("filter", value)
    parsed = _condition(reader, in_logic=False)
    reader.end()
    return parsed


def _condition(
    reader: TextReader, *, in_logic: bool
) -> tuple[bool, str, str | Sequence[str], str | None]:
    negated = reader.take("not.")
    operator = reader.letters()
    if operator not in _OPERATORS:
        raise reader.refuse('"not" or operator (eq, gt, ...)', back=len(operator))
    if operator in FULL_TEXT:
        raise not_done(f"full-text search ({operator})")
    quantifier = _quantifier(reader) if operator in QUANTIFIABLE else None
    reader.expect(".")
    value: str | Sequence[str]
    if operator == "in":
        value = _list(reader)
    elif operator == "is":
        value = reader.letters().lower()
        if value not in IS_VALUES:
            raise reader.refuse("isVal: (null, not_null, true, false, unknown)", back=len(value))
    else:
        value = _value_in_logic(reader) if in_logic else reader.rest()
    return negated, operator, value, quantifier


def _quantifier(reader: TextReader) -> str | None:
    for quantifier in ("any", "all"):
        if reader.take(f"({quantifier})"):
            return quantifier
    return None


def _list(reader: TextReader) -> Sequence[str]:
    reader.spaces()
    reader.expect("(")
    reader.spaces()
    values = [_element(reader)]
    while reader.take(","):
        values.append(_element(reader))
    reader.expect(")")
    reader.spaces()
    return values


def _element(reader: TextReader) -> str:
    """Return a value that ends at a comma or a closing parenthesis, unless these are quoted."""
    quoted = reader.quoted_before(",)")
    return reader.until(",)") if quoted is None else quoted


def _value_in_logic(reader: TextReader) -> str:
    quoted = reader.quoted_before(",)")
    if quoted is not None:
        return quoted
    array = reader.braces()
    return reader.until(",)") if array is None else array


def _logic_parameter(name: str, value: str) -> Condition:
    reader = TextReader("logic tree", value)
    negated = name.startswith("not.")
    logic = Logic(negated, name.rpartition(".")[2], _conditions(reader))
    reader.end()
    return logic


def _conditions(reader: TextReader) -> Sequence[Condition]:
    """Return what stands in parentheses, separated by commas."""
    reader.spaces()
    reader.expect("(")
    found = [_logic_element(reader)]
    while reader.take(","):
        found.append(_logic_element(reader))
    reader.expect(")")
    reader.spaces()
    return found


def _logic_element(reader: TextReader) -> Condition:
    reader.spaces()
    for prefix in ("", "not."):
        for operator in _LOGIC:
            if reader.at(f"{prefix}{operator}("):
                reader.take(f"{prefix}{operator}")
                return Logic(bool(prefix), operator, _conditions(reader))
    column = reader.name()
    if reader.at("->"):
        raise not_done("filters on JSON paths")
    reader.expect(".")
    found = Filter(column, *_condition(reader, in_logic=True))
    reader.spaces()
    return found


def _selection(text: str) -> Sequence[Selected]:
    """Return the columns; nothing selected is everything."""
    if not text:
        return (Selected("*"),)
    reader = TextReader("select parameter", text)
    selected = [_selected(reader)]
    while reader.take(","):
        selected.append(_selected(reader))
    reader.end()
    return selected


def _selected(reader: TextReader) -> Selected:
    reader.spaces()
    if reader.at("..."):
        raise not_done("embedded resources")
    if reader.take("*"):
        reader.spaces()
        return Selected("*")
    column, alias = reader.name(), None
    if reader.at(":") and not reader.at("::"):
        reader.take(":")
        column, alias = reader.name(), column
    for mark, what in (
        ("(", "embedded resources"),
        ("!", "embedded resources"),
        ("->", "JSON paths"),
        ("::", "casts"),
        (".", "aggregate functions"),
    ):
        if reader.at(mark):
            raise not_done(f"{what} in select")
    reader.spaces()
    return Selected(column, alias)


def _order(text: str) -> Sequence[OrderTerm]:
    reader = TextReader("order", text)
    terms = [_order_term(reader)]
    while reader.take(","):
        terms.append(_order_term(reader))
    reader.end()
    return terms


def _order_term(reader: TextReader) -> OrderTerm:
    reader.spaces()
    column = reader.name()
    if reader.at("(") or reader.at("->"):
        raise not_done("an order by JSON paths or embedded resources")
    descending = False
    if reader.take(".desc"):
        descending = True
    else:
        reader.take(".asc")
    nulls = None
    for place in Nulls:
        if nulls is None and reader.take(f".{place}"):
            nulls = place
    if reader.at("."):
        raise reader.refuse('"asc", "desc", "nullsfirst" or "nullslast"')
    reader.spaces()
    return OrderTerm(column, descending, nulls)


def _names(what: str, text: str | None) -> Sequence[str] | None:
    if text is None:
        return None
    reader = TextReader(what, text)
    names = [reader.name()]
    while reader.take(","):
        reader.spaces()
        names.append(reader.name())
    reader.end()
    return names
