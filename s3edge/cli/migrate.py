"""``s3edge migrate``."""

from pathlib import Path

import click

from s3edge.cli.options import Failed
from s3edge_postgres.migrations import migrations


@click.command()
@click.option(
    "--to-dir",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to put the scripts: supabase/migrations of the project's own repository.",
)
def migrate(to_dir: Path) -> None:
    """Write the database's SQL scripts, for: supabase db push."""
    try:
        to_dir.mkdir(parents=True, exist_ok=True)
        for migration in migrations():
            path = to_dir / migration.name
            if path.exists() and path.read_text("utf-8") != migration.sql:
                message = f"{path} is there and says something else; move it away first"
                raise Failed(message)
            path.write_text(migration.sql, "utf-8")
            click.echo(path)
    except OSError as error:
        message = f"{to_dir} cannot be written: {error.strerror}"
        raise Failed(message) from None
