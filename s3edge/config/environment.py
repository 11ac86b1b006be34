"""Reads the environment, and a ``.env`` file under it."""

import os
from collections.abc import Mapping
from pathlib import Path

from s3edge.config.settings import SettingsError
from s3edge.plugins import missing


DEFAULT_ENV_FILE = Path(".env")


def read_environment(env_file: Path | None = None) -> Mapping[str, str]:
    """
    Return the environment's variables, and those of a file where the environment has none.

    Args:
        env_file: Which file; by default ``.env`` in the current folder, if it is there.

    Raises:
        SettingsError: The file cannot be read, or the package that reads such files is not installed.
    """
    path = DEFAULT_ENV_FILE if env_file is None else env_file
    if not path.is_file():
        if env_file is not None:
            message = f"--env-file: {env_file} is not a file"
            raise SettingsError(message)
        return dict(os.environ)
    try:
        # Whoever builds from a mapping of their own need not have it.
        from dotenv import dotenv_values  # noqa: PLC0415
        from dotenv.parser import parse_stream  # noqa: PLC0415
    except ModuleNotFoundError as error:
        message = f"reading {path} needs {missing('python-dotenv')}"
        raise SettingsError(message) from error
    try:
        # No interpolation: a secret may hold a dollar sign.
        values = dotenv_values(path, interpolate=False)
        with path.open(encoding="utf-8") as file:
            unread = [item.original.line for item in parse_stream(file) if item.error]
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read: {error}"
        raise SettingsError(message) from error
    if unread:
        message = f"{path}: line {unread[0]} cannot be read; write NAME=value"
        raise SettingsError(message)
    return {name: value for name, value in values.items() if value is not None} | dict(os.environ)
