"""procrastinate's own tables and functions, as scripts that are applied beside ours."""

from collections.abc import Collection, Sequence
from importlib.resources import files

from procrastinate.schema import SchemaManager

from s3edge_postgres.migrations import Migration, migrations


SCHEMA = "procrastinate"
"""Where they are: not in ``public``, which PostgREST exposes."""

_WHOLE = "procrastinate_schema_"
_CHANGE = "procrastinate_change_"

# Its scripts name nothing by schema, ours everything; so the path is theirs only while they run.
_IN_ITS_SCHEMA = (
    "set local search_path to {schema}, pg_temp;\n{script}\n;set local search_path to default;"
)


def with_queue(applied: Collection[str]) -> Sequence[Migration]:
    """Return our own scripts, then the queue's, for ``applying.apply``."""
    return [*migrations(), *queue_scripts(applied)]


def queue_scripts(applied: Collection[str]) -> Sequence[Migration]:
    """
    Return what makes the queue, or what brings it up to the version that is installed.

    Where it is not there yet that is the whole schema of that version, named for the last change it
    contains; else each later change, as https://procrastinate.readthedocs.io has it applied.

    Args:
        applied: The names of the scripts that are applied.
    """
    changes = _changes()
    newest = max(changes)
    begun = [name.removeprefix(_WHOLE) for name in applied if name.startswith(_WHOLE)]
    if not begun:
        whole = f"create schema {SCHEMA};\n{_in_its_schema(SchemaManager.get_schema())}"
        return [Migration(f"{_WHOLE}{newest}", whole)]
    return [
        Migration(f"{_CHANGE}{name}", _in_its_schema(changes[name]))
        for name in sorted(changes)
        if name > max(begun)
    ]


def _changes() -> dict[str, str]:
    """Return the scripts of all changes so far, by name; names sort by version."""
    folder = files("procrastinate.sql") / "migrations"
    return {
        entry.name: entry.read_text("utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    }


def _in_its_schema(script: str) -> str:
    return _IN_ITS_SCHEMA.format(schema=SCHEMA, script=script)
