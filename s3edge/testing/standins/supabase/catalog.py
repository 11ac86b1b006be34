"""
What the database holds: tables and functions, looked up for each request.

PostgREST keeps these in a schema cache and reads them again when it is notified. Looking each time means
that a migration is seen at once, and that a stale cache is the one thing this stand-in cannot show.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import psycopg
from attrs import frozen
from psycopg import sql
from psycopg.rows import dict_row

from s3edge.testing.standins.supabase.quoting import identifier


_RELATION = """
select a.attname as name,
    pg_catalog.format_type(a.atttypid, -1) as type,
    pg_catalog.pg_get_expr(d.adbin, d.adrelid) as default_value,
    pg_catalog.array_position(i.indkey::int2[], a.attnum) as key_position
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_catalog.pg_attrdef d
    on d.adrelid = c.oid and d.adnum = a.attnum and a.attgenerated = ''
left join pg_catalog.pg_index i on i.indrelid = c.oid and i.indisprimary
where n.nspname = %s and c.relname = %s and c.relkind in ('r', 'p', 'v', 'm', 'f')
order by a.attnum
"""

_RELATION_NAMES = """
select c.relname from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %s and c.relkind in ('r', 'p', 'v', 'm', 'f')
"""

_FUNCTIONS = """
select p.provolatile = 'v' as is_volatile,
    p.proretset as returns_set,
    t.typname = 'void' as returns_void,
    t.typtype = 'c' or t.typname = 'record'
        or coalesce(p.proargmodes::text[] && '{o,b,t}', false) as is_composite,
    array(
        select pg_catalog.format_type(u.oid, -1)
        from pg_catalog.unnest(p.proargtypes) with ordinality u (oid, place) order by u.place
    ) as types,
    p.proargnames as names,
    p.proargmodes::text[] as modes,
    p.pronargdefaults as defaults,
    p.provariadic <> 0 as is_variadic,
    p.proconfig as settings
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
join pg_catalog.pg_type t on t.oid = p.prorettype
where n.nspname = %s and p.proname = %s and p.prokind = 'f'
    and t.typname not in ('trigger', 'event_trigger')
order by p.oid
"""

_FUNCTION_NAMES = """
select distinct p.proname from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = %s and p.prokind = 'f'
"""

_SIMILAR_ENOUGH = 0.75


@frozen
class Column:
    """
    A column.

    Attributes:
        name: Its name.
        type: Its type, as SQL.
        default: The expression of its default, as SQL; ``None`` without one.
        key_position: Its place in the primary key, from 0; ``None`` outside of it.
    """

    name: str
    type: str
    default: str | None
    key_position: int | None


@frozen
class Relation:
    """
    A table or a view.

    Attributes:
        schema: Where it is.
        name: Its name.
        columns: By name, in their order.
    """

    schema: str
    name: str
    columns: Mapping[str, Column]

    @property
    def identifier(self) -> sql.Composable:
        """Its qualified name."""
        return identifier(self.schema, self.name)

    @property
    def primary_key(self) -> Sequence[str]:
        """The key's columns, in the key's order."""
        places = {
            column.name: column.key_position
            for column in self.columns.values()
            if column.key_position is not None
        }
        return sorted(places, key=places.__getitem__)


@frozen
class Parameter:
    """
    What a function is given.

    Attributes:
        name: Its name; empty without one.
        type: Its type, as SQL.
        required: Whether it has no default.
    """

    name: str
    type: str
    required: bool


@frozen
class Function:
    """
    A function.

    Attributes:
        schema: Where it is.
        name: Its name.
        parameters: What goes in, in order.
        is_volatile: Whether it may write.
        is_variadic: Whether its last parameter takes any number of arguments.
        returns_set: Whether it returns any number of rows.
        returns_void: Whether it returns nothing.
        is_composite: Whether what it returns has fields.
        statement_timeout: Its own, as a setting; ``None`` without one.
    """

    schema: str
    name: str
    parameters: Sequence[Parameter]
    is_volatile: bool
    is_variadic: bool
    returns_set: bool
    returns_void: bool
    is_composite: bool
    statement_timeout: str | None

    @property
    def identifier(self) -> sql.Composable:
        """Its qualified name."""
        return identifier(self.schema, self.name)

    @property
    def signature(self) -> str:
        """Its name and parameters, as PostgREST's messages show them."""
        shown = ", ".join(f"{each.name} => {each.type}" for each in self.parameters)
        return f"{self.schema}.{self.name}({shown})"

    def takes(self, names: frozenset[str]) -> bool:
        """Return whether it can be called with arguments of these names, and no others."""
        known = {each.name for each in self.parameters}
        required = {each.name for each in self.parameters if each.required}
        return required <= names <= known


Connection = psycopg.AsyncConnection[Any]


async def find_relation(connection: Connection, schema: str, name: str) -> Relation | None:
    """Return a table or view, or ``None``."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_RELATION, [schema, name])
        rows = await cursor.fetchall()
    columns = {
        row["name"]: Column(row["name"], row["type"], row["default_value"], row["key_position"])
        for row in rows
    }
    return Relation(schema, name, columns) if columns else None


async def find_functions(connection: Connection, schema: str, name: str) -> Sequence[Function]:
    """Return all functions of that name."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_FUNCTIONS, [schema, name])
        return [_function(schema, name, row) for row in await cursor.fetchall()]


async def similar_relation(connection: Connection, schema: str, name: str) -> str | None:
    """Return the table whose name is most like this one, if any is."""
    return await _similar(connection, _RELATION_NAMES, schema, name)


async def similar_function(connection: Connection, schema: str, name: str) -> str | None:
    """Return the function whose name is most like this one, if any is."""
    return await _similar(connection, _FUNCTION_NAMES, schema, name)


async def _similar(connection: Connection, query: str, schema: str, name: str) -> str | None:
    cursor = await connection.execute(query.encode(), [schema])
    names = [row[0] for row in await cursor.fetchall()]
    return next(iter(get_close_matches(name, names, 1, _SIMILAR_ENOUGH)), None)


def _function(schema: str, name: str, row: Mapping[str, Any]) -> Function:
    return Function(
        schema,
        name,
        _parameters(row),
        is_volatile=row["is_volatile"],
        is_variadic=row["is_variadic"],
        returns_set=row["returns_set"],
        returns_void=row["returns_void"],
        is_composite=row["is_composite"],
        statement_timeout=_setting(row["settings"] or (), "statement_timeout"),
    )


def _parameters(row: Mapping[str, Any]) -> Sequence[Parameter]:
    """Return what goes in: names and modes also list what comes out."""
    types: Sequence[str] = row["types"]
    names: Sequence[str] = row["names"] or [""] * len(types)
    modes: Sequence[str] = row["modes"] or ["i"] * len(types)
    inward = [name for name, mode in zip(names, modes, strict=False) if mode in "ibv"]
    first_default = len(types) - row["defaults"]
    return [
        Parameter(name, type_, required=place < first_default)
        for place, (name, type_) in enumerate(zip(inward, types, strict=True))
    ]


def _setting(settings: Sequence[str], wanted: str) -> str | None:
    for setting in settings:
        name, _, value = setting.partition("=")
        if name == wanted:
            return value
    return None
