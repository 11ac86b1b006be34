"""The schema, as SQL scripts that `supabase db push`, psql and ``s3edge migrate`` take as they are."""

from collections.abc import Sequence
from importlib.resources import files

from attrs import field, frozen


@frozen
class Migration:
    """
    One script.

    Attributes:
        name: Of its file; scripts are applied in the order of their names, each once.
        sql: What it says; to be run in one transaction.
    """

    name: str
    sql: str = field(repr=False)


def migrations() -> Sequence[Migration]:
    """Return all scripts, in order."""
    return [
        Migration(entry.name, entry.read_text("utf-8"))
        for entry in sorted(files(__name__).iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".sql")
    ]
