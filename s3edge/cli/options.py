"""The options that every command takes, and how settings and errors reach a command."""

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from s3edge.cli.logs import configure_logs
from s3edge.config import Settings, SettingsError, parse_settings, read_environment
from s3edge.errors import EdgeError


P = ParamSpec("P")
T = TypeVar("T")

WRONG_USAGE = 2

EMBEDDED_ONLY = ("SUPABASE_URL", "R2_ENDPOINT", "VASTAI_BACKEND_URL")
"""What ``dev`` and ``demo`` overlook: they run on this machine alone."""


def with_environment(command: Callable[..., T]) -> Callable[..., T]:
    """Give a command ``--data-dir`` and ``--env-file``, and what they and the environment say."""

    @click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where the embedded parts keep their data [S3EDGE_DATA_DIR, default .s3edge].",
    )
    @click.option(
        "--env-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A file of settings; the environment takes precedence [default .env, if it is there].",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, data_dir: Path | None, env_file: Path | None, **options: Any) -> T:
        try:
            environ = dict(read_environment(env_file))
            if data_dir is not None:
                environ["S3EDGE_DATA_DIR"] = str(data_dir)
            return command(*args, environ=environ, **options)
        except SettingsError as error:
            raise Failed(str(error), WRONG_USAGE) from None
        except EdgeError as error:
            raise Failed(error.message) from None

    return wrapped


def settings_of(environ: Mapping[str, str], *, embedded: bool = False) -> Settings:
    """
    Return the settings of an environment, with logs set up as they say.

    Args:
        environ: As ``with_environment`` gave it.
        embedded: Whether to overlook the names that mean a service elsewhere.
    """
    if embedded:
        environ = {name: value for name, value in environ.items() if name not in EMBEDDED_ONLY}
    settings = parse_settings(environ)
    configure_logs(settings.log_level)
    return settings


def export(environ: Mapping[str, str]) -> None:
    """Hand settings on to worker processes, which read the environment for themselves."""
    os.environ.update(environ)


class Failed(click.ClickException):
    """
    A failed operation: one line on standard error.

    Args:
        message: What failed and what to do.
        exit_code: 1, or 2 for wrong usage.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        # click declares it for the class, and reads it from the instance.
        self.exit_code = exit_code  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        """Write the line."""
        click.echo(f"s3edge: {self.format_message()}", file=file, err=file is None)
