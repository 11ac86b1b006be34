"""The reference names everything that there is: settings, commands, routes and error codes."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from s3edge.cli import commands
from s3edge.config import QUEUE, Port
from s3edge.config.build import PORTS
from s3edge.config.settings import SETTINGS
from s3edge.errors import Code
from s3edge.testing.wsgi_server import CORES, HOOKS, MODULE
from s3edge.web.http import Route
from s3edge.web.routes import API_ROUTES, OPENAPI_ROUTE
from s3edge.web.statuses import STATUS_OF


ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def commands_of(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every command under a group that does something, with its whole name."""
    context = click.Context(group)
    for own_name in group.list_commands(context):
        command = group.get_command(context, own_name)
        assert command is not None
        whole_name = f"{name} {own_name}"
        if isinstance(command, click.Group):
            yield from commands_of(command, whole_name)
        else:
            yield whole_name, command


COMMANDS = dict(commands_of(commands, "s3edge"))


def rows_of(page: Path) -> dict[str, str]:
    """Return a page's table rows by the code in their first cell."""
    rows = re.finditer(r"^\| `(?P<name>[^`]+)` \|.*$", page.read_text("utf-8"), re.MULTILINE)
    return {row["name"]: row[0] for row in rows}


def test_every_setting_is_in_the_reference() -> None:
    """The tables of settings have a row for each setting, and for no other."""
    assert set(rows_of(REFERENCE / "settings.md")) == set(SETTINGS)


@pytest.mark.parametrize("port", [*PORTS, QUEUE], ids=lambda port: port.name)
def test_every_port_can_be_written_for(port: Port) -> None:
    """The page on adapters has a row for each port that a setting picks an adapter of."""
    page = (ROOT / "docs" / "how-to" / "write-an-adapter.md").read_text("utf-8")
    row = rf"^\| `(\w+)` \| `{port.group}` \| `{port.setting}` \| `\1Contract`"
    assert re.search(row, page, re.MULTILINE)


def test_every_command_is_in_the_reference() -> None:
    """The page of commands has a section for each command, and for no other."""
    page = (REFERENCE / "command-line.md").read_text("utf-8")
    assert sorted(re.findall(r"^## (s3edge .+)$", page, re.MULTILINE)) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_the_reference(name: str) -> None:
    """A command's options are in its section, or among those that nearly every command takes."""
    page = (REFERENCE / "command-line.md").read_text("utf-8")
    common, *sections = page.split("\n## ")
    section = next(text for text in sections if text.startswith(f"{name}\n"))
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert re.search(rf"`{parameter.opts[-1]}\b", common + section), parameter.opts


@pytest.mark.parametrize("route", [*API_ROUTES, OPENAPI_ROUTE], ids=lambda route: route.name)
def test_every_route_is_in_the_reference(route: Route) -> None:
    """The table of endpoints has each route, with the statuses of its success and its errors."""
    page = (REFERENCE / "api.md").read_text("utf-8")
    row = re.search(
        rf"^\| \[?{route.method} `{re.escape(route.path)}`.*? \| (.*) \| (.*?) ?\|$",
        page,
        re.MULTILINE,
    )
    assert row is not None
    succeeds, fails = (
        {int(status) for status in re.findall(r"\d{3}", cell)} for cell in row.groups()
    )
    assert succeeds == {route.status, *route.also}
    assert fails >= {STATUS_OF[code] for code in route.errors}


def test_the_hooks_of_gunicorn_are_those_that_are_tested() -> None:
    """Whoever copies them from the page gets what the tests of stops run with, but for the names."""
    page = (ROOT / "docs" / "how-to" / "mount-in-your-app.md").read_text("utf-8")
    hooks = HOOKS.replace(f"from {MODULE} import app", "from flask_app import edge")
    assert f"```python{hooks.replace('app.', 'edge.')}```" in page
    assert f"```python{CORES}```" in page


def test_every_error_is_in_the_reference() -> None:
    """The table of errors has each code with its status, and no other."""
    rows = rows_of(REFERENCE / "api.md")
    errors = {name: row for name, row in rows.items() if re.fullmatch(r"[A-Z_]+", name)}
    assert set(errors) == set(Code)
    for code in Code:
        assert errors[code].startswith(f"| `{code}` | {STATUS_OF[code]} |")
