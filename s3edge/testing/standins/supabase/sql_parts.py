"""
The parts of the SQL that requests become.

Identifiers are quoted, values are bound, and types come from the catalog. As in PostgREST, one statement
does the work and puts its rows together as JSON, so that the database formats every value.
"""

from collections.abc import Mapping, Sequence
from enum import Enum

from attrs import Factory, define
from psycopg import sql

from s3edge.testing.standins.supabase.query_values import (
    Condition,
    Filter,
    Logic,
    OrderTerm,
    Query,
    Selected,
)
from s3edge.testing.standins.supabase.quoting import identifier


MAX_ROWS = 1000
"""Supabase's ``PGRST_DB_MAX_ROWS``: what a read returns at the most, cut without a word."""

_COMPARISONS: Mapping[str, str] = {
    "eq": "=",
    "neq": "<>",
    "gt": ">",
    "gte": ">=",
    "lt": "<",
    "lte": "<=",
    "like": "like",
    "ilike": "ilike",
    "match": "~",
    "imatch": "~*",
    "isdistinct": "is distinct from",
    "cs": "@>",
    "cd": "<@",
    "ov": "&&",
    "sl": "<<",
    "sr": ">>",
    "nxr": "&<",
    "nxl": "&>",
    "adj": "-|-",
}

_IS: Mapping[str, str] = {
    "null": "is null",
    "not_null": "is not null",
    "true": "is true",
    "false": "is false",
    "unknown": "is unknown",
}


class Shape(Enum):
    """How the rows of a statement become JSON."""

    ARRAY = "coalesce(json_agg(_postgrest_t), '[]')::text"
    OBJECT = "coalesce(json_agg(_postgrest_t) -> 0, 'null')::text"
    SCALAR = "coalesce(json_agg(_postgrest_t.pgrst_scalar) -> 0, 'null')::text"
    SCALARS = "coalesce(json_agg(_postgrest_t.pgrst_scalar), '[]')::text"
    NOTHING = "''"


@define
class Values:
    """The bound values of a statement."""

    by_name: dict[str, object] = Factory(dict)

    def bind(self, value: object) -> sql.Placeholder:
        """Return what stands for a value in the SQL."""
        name = f"v{len(self.by_name)}"
        self.by_name[name] = value
        return sql.Placeholder(name)


def column_of(source: sql.Composable, name: str) -> sql.Composable:
    """Return a column, qualified, so that no other can be meant."""
    return sql.SQL("{}.{}").format(source, identifier(name))


def wrapped(
    source: sql.Composable,
    shape: Shape,
    *,
    total: sql.Composable | None = None,
    wants_key: bool = False,
) -> sql.Composed:
    """
    Return a statement that runs another one and puts its rows together.

    Its one row holds the total, the number of rows, the body, the headers and the status that the
    database set, how many rows an upsert met, and the first row's columns as a JSON object of texts.

    Args:
        source: Common table expressions; the one called ``pgrst_source`` returns the rows.
        shape: What becomes of them.
        total: Counts what the source would return without its limit.
        wants_key: Whether the first row's columns are wanted.
    """
    key = (
        "(select json_object_agg(k.key, k.value)::text from"
        " (select row_to_json(s) as r from pgrst_source s limit 1) d, json_each_text(d.r) k)"
    )
    return sql.SQL(
        "with {source} select {total}, pg_catalog.count(*), {body},"
        " nullif(current_setting('response.headers', true), ''),"
        " nullif(current_setting('response.status', true), ''),"
        " coalesce(nullif(current_setting('standin.met', true), ''), '0')::int, {key}"
        " from (select * from pgrst_source) _postgrest_t"
    ).format(
        source=source,
        total=total or sql.SQL("null::bigint"),
        body=sql.SQL(shape.value),
        key=sql.SQL(key if wants_key else "null::text"),
    )


def selection(selected: Sequence[Selected], source: sql.Composable) -> sql.Composable:
    """Return the columns of an answer."""
    return sql.SQL(", ").join([_selected(each, source) for each in selected])


def _selected(selected: Selected, source: sql.Composable) -> sql.Composable:
    if selected.column == "*":
        return sql.SQL("{}.*").format(source)
    column = column_of(source, selected.column)
    if selected.alias is None:
        return column
    return sql.SQL("{} as {}").format(column, identifier(selected.alias))


def where(
    conditions: Sequence[Condition], source: sql.Composable, values: Values
) -> sql.Composable:
    """Return the conditions as a clause; nothing for none."""
    if not conditions:
        return sql.SQL("")
    joined = [_condition(each, source, values) for each in conditions]
    return sql.SQL(" where {}").format(sql.SQL(" and ").join(joined))


def order_by(terms: Sequence[OrderTerm], source: sql.Composable) -> sql.Composable:
    """Return the order as a clause; nothing for none."""
    if not terms:
        return sql.SQL("")
    return sql.SQL(" order by {}").format(
        sql.SQL(", ").join([_order_term(term, source) for term in terms])
    )


def limited(limit: int | None, offset: int) -> sql.Composable:
    """Return the clause that cuts a read, at ``MAX_ROWS`` at the latest."""
    most = MAX_ROWS if limit is None else min(limit, MAX_ROWS)
    return sql.SQL(" limit {} offset {}").format(sql.Literal(most), sql.Literal(offset))


def page_of(
    query: Query,
    source: sql.Composable,
    values: Values,
    *,
    limit: int | None,
    offset: int,
) -> sql.Composable:
    """Return everything of a read that follows its ``from``."""
    return sql.SQL("{}{}{}").format(
        where(query.conditions, source, values),
        order_by(query.order, source),
        limited(limit, offset),
    )


def _condition(condition: Condition, source: sql.Composable, values: Values) -> sql.Composable:
    if isinstance(condition, Logic):
        inner = [_condition(each, source, values) for each in condition.conditions]
        joined: sql.Composable = sql.SQL(f" {condition.operator} ").join(inner)
    else:
        joined = _filter(condition, source, values)
    return sql.SQL("not ({})" if condition.negated else "({})").format(joined)


def _filter(condition: Filter, source: sql.Composable, values: Values) -> sql.Composable:
    column = column_of(source, condition.column)
    value = condition.value
    if condition.operator == "in":
        # An empty list, and a list of one empty text, which PostgREST cannot tell apart.
        array = "{}" if list(value) == [""] else array_literal(value)
        return sql.SQL("{} = any({})").format(column, values.bind(array))
    assert isinstance(value, str)
    if condition.operator == "is":
        return sql.SQL("{} {}").format(column, sql.SQL(_IS[value]))
    if condition.operator in {"like", "ilike"}:
        value = value.replace("*", "%")
    compared = sql.SQL("{} {} {}" if condition.quantifier is None else "{} {} {}({})")
    parts: list[sql.Composable] = [column, sql.SQL(_COMPARISONS[condition.operator])]
    if condition.quantifier is not None:
        parts.append(sql.SQL("any" if condition.quantifier == "any" else "all"))
    return compared.format(*parts, values.bind(value))


def array_literal(elements: Sequence[str]) -> str:
    """Return texts as an array of Postgres, whose type the database then infers."""
    escaped = (each.replace("\\", "\\\\").replace('"', '\\"') for each in elements)
    return "{" + ",".join(f'"{each}"' for each in escaped) + "}"


def _order_term(term: OrderTerm, source: sql.Composable) -> sql.Composable:
    parts = [column_of(source, term.column)]
    if term.descending:
        parts.append(sql.SQL("desc"))
    if term.nulls is not None:
        parts.append(sql.SQL("nulls first" if term.nulls == "nullsfirst" else "nulls last"))
    return sql.SQL(" ").join(parts)
