"""The SQL of a function call, and which function is called."""

from collections.abc import Mapping, Sequence

from psycopg import sql

from s3edge.testing.standins.supabase.catalog import Function, Parameter
from s3edge.testing.standins.supabase.payload import Payload
from s3edge.testing.standins.supabase.query_values import Query, Selected
from s3edge.testing.standins.supabase.quoting import identifier, verbatim
from s3edge.testing.standins.supabase.ranges import Range
from s3edge.testing.standins.supabase.refusals import Refusal, not_done
from s3edge.testing.standins.supabase.sql_parts import (
    Shape,
    Values,
    column_of,
    page_of,
    selection,
    where,
    wrapped,
)
from s3edge.testing.standins.supabase.table_statements import Statement


Arguments = Payload | Mapping[str, str]
"""Of a POST, its body; of a GET, its parameters."""


def choose(
    found: Sequence[Function], schema: str, name: str, arguments: Arguments, near: str | None
) -> Function:
    """
    Return the one function that takes these arguments.

    Args:
        found: All of that name.
        schema: Where they were looked for.
        name: What they were called.
        arguments: What is passed.
        near: A function with a similar name.

    Raises:
        Refusal: There is none (``PGRST202``), or more than one (``PGRST203``).
    """
    names = argument_names(arguments)
    fitting = [each for each in found if each.takes(frozenset(names))]
    if len(fitting) > 1:
        raise Refusal(
            300,
            "PGRST203",
            "Could not choose the best candidate function between: "
            + ", ".join(each.signature for each in fitting),
            hint="Try renaming the parameters or the function itself in the database so function"
            " overloading can be resolved",
        )
    if not fitting:
        if any(_is_unnamed(each) for each in found):
            raise not_done("functions with an unnamed parameter")
        raise _not_found(schema, name, names, arguments, near)
    if fitting[0].is_variadic:
        raise not_done("variadic functions")
    return fitting[0]


def argument_names(arguments: Arguments) -> Sequence[str]:
    """Return the names of what is passed, in their order."""
    return list(arguments.keys) if isinstance(arguments, Payload) else sorted(arguments)


def shape_of(function: Function) -> Shape:
    """Return what a function's result looks like."""
    if function.is_composite:
        return Shape.ARRAY if function.returns_set else Shape.OBJECT
    return Shape.SCALARS if function.returns_set else Shape.SCALAR


def call(
    function: Function,
    arguments: Arguments,
    query: Query,
    page: Range,
    shape: Shape,
    *,
    counted: bool,
) -> Statement:
    """
    Return what calls a function and filters what it returns.

    Raises:
        Refusal: The result has no columns to select or filter.
    """
    values = Values()
    called = identifier(function.name)
    if function.is_composite:
        result: sql.Composable = sql.SQL("{}.*").format(called)
        selected = selection(query.selected, called)
    else:
        if query.conditions or query.order or list(query.selected) != [Selected("*")]:
            raise not_done("select, order and filters on results without columns")
        result = sql.SQL("pgrst_scalar")
        selected = result
    source = sql.SQL(
        "pgrst_call as ({call}), pgrst_source as (select {selected} from pgrst_call as {name}{page})"
    ).format(
        call=_call(function, arguments, result, values),
        selected=selected,
        name=called,
        page=page_of(query, called, values, limit=page.limit, offset=page.offset),
    )
    total = None
    if counted:
        total = sql.SQL("(select pg_catalog.count(*) from pgrst_call as {}{})").format(
            called, where(query.conditions, called, values)
        )
    return Statement(wrapped(source, shape, total=total), values)


def _call(
    function: Function, arguments: Arguments, result: sql.Composable, values: Values
) -> sql.Composable:
    passed = set(argument_names(arguments))
    parameters = [each for each in function.parameters if each.name in passed]
    given: sql.Composable = sql.SQL("")
    if isinstance(arguments, Payload):
        actual = [column_of(identifier("pgrst_body"), each.name) for each in parameters]
        given = _body(arguments, parameters, values)
    else:
        actual = [
            sql.SQL("{}::{}").format(values.bind(arguments[each.name]), verbatim(each.type))
            for each in parameters
        ]
    named = [
        sql.SQL("{} := {}").format(identifier(each.name), value)
        for each, value in zip(parameters, actual, strict=True)
    ]
    call = sql.SQL("{}({})").format(function.identifier, sql.SQL(", ").join(named))
    if not function.is_composite:
        call = sql.SQL("(select {} as pgrst_scalar)").format(call)
    return sql.SQL("select {} from {}lateral {} as {}").format(
        result, given, call, identifier(function.name)
    )


def _body(payload: Payload, parameters: Sequence[Parameter], values: Values) -> sql.Composable:
    """Return the arguments as a table of one row, ``pgrst_body``, and a comma."""
    if not parameters:
        return sql.SQL("")
    typed = [
        sql.SQL("{} {}").format(identifier(each.name), verbatim(each.type)) for each in parameters
    ]
    reader = "json_to_record" if payload.is_object else "json_to_recordset"
    return sql.SQL("{}({}::json) pgrst_body ({}), ").format(
        sql.SQL(reader), values.bind(payload.text), sql.SQL(", ").join(typed)
    )


def _is_unnamed(function: Function) -> bool:
    return len(function.parameters) == 1 and not function.parameters[0].name


def _not_found(
    schema: str, name: str, names: Sequence[str], arguments: Arguments, near: str | None
) -> Refusal:
    shown = ", ".join(names)
    searched = " without parameters"
    if names:
        searched = f" with parameter{'s' if len(names) > 1 else ''} {shown}"
    if isinstance(arguments, Payload):
        searched += " or with a single unnamed json/jsonb parameter"
    return Refusal(
        404,
        "PGRST202",
        f"Could not find the function {schema}.{name}"
        + (f"({shown})" if names else " without parameters")
        + " in the schema cache",
        details=f"Searched for the function {schema}.{name}{searched}, but no matches were found in"
        " the schema cache.",
        hint=near and f"Perhaps you meant to call the function {schema}.{near}",
    )
