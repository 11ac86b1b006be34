"""
Names and expressions from outside as parts of SQL.

``psycopg.sql.Identifier`` and ``Literal`` leave a ``%`` as it is, which psycopg then takes for a
placeholder.
"""

from psycopg import sql


def identifier(*parts: str) -> sql.SQL:
    """Return a name, qualified when there are several parts."""
    return verbatim(".".join('"' + part.replace('"', '""') + '"' for part in parts))


def text_literal(text: str) -> sql.SQL:
    """Return a constant; for names from the catalog, everything else is bound."""
    return verbatim("E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'")


def verbatim(expression: str) -> sql.SQL:
    """Return SQL that the catalog holds."""
    return sql.SQL(expression.replace("%", "%%"))
