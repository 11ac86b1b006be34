"""``s3edge migrate``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from s3edge.cli.options import WRONG_USAGE, Failed, settings_of, with_environment
from s3edge.config import Settings
from s3edge.plugins import is_of_an_extra, missing, scheme_of
from s3edge.ports import INLINE
from s3edge_postgres.migrations import migrations


SCHEMES = ("postgres", "postgresql")


@click.command()
@click.option(
    "--to-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the scripts to this folder instead, such as supabase/migrations in your project.",
)
@click.option(
    "--database",
    help="postgresql://...; visible to other users of this machine while it runs [S3EDGE_DATABASE].",
)
@click.option("--dry-run", is_flag=True, help="Print what would be applied, and change nothing.")
@with_environment
def migrate(
    environ: Mapping[str, str], to_dir: Path | None, database: str | None, *, dry_run: bool
) -> None:
    """Bring the database's schema up to date, or write its SQL scripts for 'supabase db push'."""
    if to_dir is not None:
        if database is not None or dry_run:
            raise Failed("--to-dir writes files; leave out --database and --dry-run", WRONG_USAGE)
        _write(to_dir)
        return
    if database is not None:
        environ = {**environ, "S3EDGE_DATABASE": database}
    settings = settings_of(environ)
    if scheme_of(settings.database) not in SCHEMES:
        message = (
            "set S3EDGE_DATABASE=postgresql://user:password@host:5432/database, or --database, or"
            " write the scripts into a folder with --to-dir"
        )
        raise Failed(message, WRONG_USAGE)
    for name in _apply(settings, dry_run=dry_run):
        click.echo(name)


def _apply(settings: Settings, *, dry_run: bool) -> Sequence[str]:
    """Apply what is not applied yet; return the names."""
    try:
        from s3edge_postgres.address import parse_address  # noqa: PLC0415 - an extra brings psycopg
        from s3edge_postgres.applying import ApplyError, apply, own_scripts  # noqa: PLC0415 - likewise

        scripts_for = own_scripts
        if settings.dispatch != INLINE:
            from s3edge_postgres.queue_schema import with_queue  # noqa: PLC0415 - another extra

            scripts_for = with_queue
    except ModuleNotFoundError as error:
        if not is_of_an_extra(error):
            raise
        message = f"migrating needs {missing(error.name)}"
        raise Failed(message) from None
    try:
        applied = apply(
            parse_address(settings.database), scripts_for, announce=_announce, dry_run=dry_run
        )
    except ValueError as error:
        raise Failed(f"S3EDGE_DATABASE: {error}", WRONG_USAGE) from None
    except ApplyError as error:
        raise Failed(str(error)) from None
    for name in applied.changed:
        _announce(f"{name} has changed since it was applied, and is left as it is")
    if not applied.names:
        _announce("everything is applied")
    return applied.names


def _announce(line: str) -> None:
    click.echo(line, err=True)


def _write(folder: Path) -> None:
    """Write the scripts into a folder, and print their paths."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for migration in migrations():
            path = folder / migration.name
            if path.exists() and path.read_text("utf-8") != migration.sql:
                message = f"{path} exists with other content; move it away first"
                raise Failed(message)
            path.write_text(migration.sql, "utf-8")
            click.echo(path)
    except OSError as error:
        message = f"{folder} cannot be written: {error.strerror}"
        raise Failed(message) from None
