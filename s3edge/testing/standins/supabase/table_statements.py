"""The SQL of requests on a table."""

from collections.abc import Sequence

from attrs import frozen
from psycopg import sql

from s3edge.testing.standins.supabase.catalog import Column, Relation
from s3edge.testing.standins.supabase.payload import Payload
from s3edge.testing.standins.supabase.preferences import Preferences, Resolution, Return
from s3edge.testing.standins.supabase.query_values import Query, Selected
from s3edge.testing.standins.supabase.quoting import identifier, text_literal, verbatim
from s3edge.testing.standins.supabase.ranges import Range
from s3edge.testing.standins.supabase.refusals import unknown_column
from s3edge.testing.standins.supabase.sql_parts import (
    Shape,
    Values,
    column_of,
    page_of,
    selection,
    where,
    wrapped,
)


@frozen
class Statement:
    """
    SQL and what is bound in it.

    Attributes:
        text: The SQL; its one row is that of ``sql_parts.wrapped``.
        values: By the names of its placeholders.
    """

    text: sql.Composed
    values: Values


def read(
    relation: Relation, query: Query, page: Range, shape: Shape, *, counted: bool
) -> Statement:
    """Return what reads rows."""
    values, table = Values(), relation.identifier
    source = sql.SQL("pgrst_source as (select {} from {}{})").format(
        selection(query.selected, table),
        table,
        page_of(query, table, values, limit=page.limit, offset=page.offset),
    )
    total = None
    if counted:
        total = sql.SQL("(select pg_catalog.count(*) from {}{})").format(
            table, where(query.conditions, table, values)
        )
    return Statement(wrapped(source, shape, total=total), values)


def insert(
    relation: Relation, query: Query, payload: Payload, preferences: Preferences, shape: Shape
) -> Statement:
    """
    Return what inserts the rows of a body.

    Raises:
        Refusal: The body has a column that the table does not have.
    """
    values, table = Values(), relation.identifier
    columns = _columns(relation, payload)
    names = sql.SQL(", ").join([identifier(column.name) for column in columns])
    body = _body(payload, columns, values, with_defaults=preferences.missing_is_default)
    source = sql.SQL(
        "pgrst_source as (insert into {table}{columns} select {values} from {body}{upsert} {rows})"
    ).format(
        table=table,
        columns=sql.SQL("({})").format(names) if columns else sql.SQL(""),
        values=sql.SQL(", ").join(
            [column_of(identifier("pgrst_body"), column.name) for column in columns]
        ),
        body=body,
        upsert=_upsert(relation, query, columns, preferences),
        rows=_returning(relation, query, preferences),
    )
    wants_key = preferences.returned is Return.HEADERS and bool(relation.primary_key)
    return Statement(wrapped(source, shape, wants_key=wants_key), values)


def update(
    relation: Relation, query: Query, payload: Payload, preferences: Preferences, shape: Shape
) -> Statement:
    """
    Return what gives the rows that match the values of a body.

    Raises:
        Refusal: The body has a column that the table does not have.
    """
    values, table = Values(), relation.identifier
    columns = _columns(relation, payload)
    if not columns:
        source = sql.SQL("pgrst_source as (select {} from {} where false)").format(
            _returned(relation, query, preferences), table
        )
        return Statement(wrapped(source, shape), values)
    assignments = [
        sql.SQL("{} = {}").format(
            identifier(column.name), column_of(identifier("pgrst_body"), column.name)
        )
        for column in columns
    ]
    source = sql.SQL("pgrst_source as (update {} set {} from {}{} {})").format(
        table,
        sql.SQL(", ").join(assignments),
        _body(payload, columns, values, with_defaults=preferences.missing_is_default),
        where(query.conditions, table, values),
        _returning(relation, query, preferences),
    )
    return Statement(wrapped(source, shape), values)


def delete(relation: Relation, query: Query, preferences: Preferences, shape: Shape) -> Statement:
    """Return what removes the rows that match."""
    values, table = Values(), relation.identifier
    source = sql.SQL("pgrst_source as (delete from {}{} {})").format(
        table,
        where(query.conditions, table, values),
        _returning(relation, query, preferences),
    )
    return Statement(wrapped(source, shape), values)


def _columns(relation: Relation, payload: Payload) -> Sequence[Column]:
    unknown = next((key for key in payload.keys if key not in relation.columns), None)
    if unknown is not None:
        raise unknown_column(relation.name, unknown)
    return [relation.columns[key] for key in payload.keys]


def _body(
    payload: Payload, columns: Sequence[Column], values: Values, *, with_defaults: bool
) -> sql.Composable:
    """Return the body as a table, ``pgrst_body``."""
    sent = values.bind(payload.text)
    if not columns:
        # As many rows as there are objects, without a column.
        if payload.is_object:
            return sql.SQL("(values (1)) pgrst_body")
        return sql.SQL("json_array_elements({}::json) pgrst_body").format(sent)
    typed = sql.SQL(", ").join(
        [
            sql.SQL("{} {}").format(identifier(column.name), verbatim(column.type))
            for column in columns
        ]
    )
    if not with_defaults:
        reader = "json_to_record" if payload.is_object else "json_to_recordset"
        return sql.SQL("{}({}::json) pgrst_body ({})").format(sql.SQL(reader), sent, typed)
    defaults = [
        sql.SQL("{}::text, {}").format(text_literal(column.name), verbatim(column.default))
        for column in columns
        if column.default is not None
    ]
    completed = sql.SQL("jsonb_build_object({}) || each").format(sql.SQL(", ").join(defaults))
    listed = "{}::jsonb" if not payload.is_object else "jsonb_build_array({}::jsonb)"
    return sql.SQL(
        "jsonb_to_recordset("
        "(select jsonb_agg({}) from jsonb_array_elements({}) each)) pgrst_body ({})"
    ).format(completed, sql.SQL(listed).format(sent), typed)


def _upsert(
    relation: Relation, query: Query, columns: Sequence[Column], preferences: Preferences
) -> sql.Composable:
    """Return what becomes of rows that are there already; without a key there is nothing to say."""
    key = relation.primary_key if query.on_conflict is None else query.on_conflict
    if preferences.resolution is None or not key:
        return sql.SQL("")
    target = sql.SQL(", ").join([identifier(name) for name in key])
    if preferences.resolution is Resolution.IGNORE or not columns:
        return sql.SQL(" on conflict ({}) do nothing").format(target)
    assignments = [
        sql.SQL("{0} = excluded.{0}").format(identifier(column.name)) for column in columns
    ]
    # The condition is always true, and counts the rows that were met: the status depends on it.
    return sql.SQL(
        " on conflict ({}) do update set {} where set_config('standin.met', (coalesce(nullif("
        "current_setting('standin.met', true), ''), '0')::int + 1)::text, true) <> ''"
    ).format(target, sql.SQL(", ").join(assignments))


def _returning(relation: Relation, query: Query, preferences: Preferences) -> sql.Composable:
    return sql.SQL("returning {}").format(_returned(relation, query, preferences))


def _returned(relation: Relation, query: Query, preferences: Preferences) -> sql.Composable:
    """Return the columns that a change returns: those need the right to read them."""
    if preferences.returned is Return.REPRESENTATION:
        return selection(query.selected, relation.identifier)
    if preferences.returned is Return.HEADERS and relation.primary_key:
        key = [Selected(name) for name in relation.primary_key]
        return selection(key, relation.identifier)
    return sql.SQL("1")
