"""A group that imports a command when it is asked for, so that none waits for what the others need."""

import sys
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any

import click

from s3edge.plugins import is_of_an_extra, missing


class LazyGroup(click.Group):
    """
    A group whose commands are elsewhere.

    Args:
        places: The module and the name of each command, as entry points write them.
        options: Of any group.
    """

    def __init__(self, *, places: Mapping[str, str], **options: Any) -> None:
        super().__init__(**options)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *self._places})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, ``None`` when there is no such; without its packages, say what to install."""
        place = self._places.get(cmd_name)
        if place is not None and cmd_name not in self.commands:
            try:
                self.add_command(resolve_name(place), cmd_name)
            except ModuleNotFoundError as error:
                if not is_of_an_extra(error):
                    raise
                sys.exit(f"s3edge: the command {cmd_name} needs {missing(error.name)}")
        return super().get_command(ctx, cmd_name)
