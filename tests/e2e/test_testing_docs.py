"""What the documents show of tests is run as it stands, by a pytest of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path


HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"

PLUGIN = "s3edge.testing.pytest_plugin"

NO_PLUGINS = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"


def blocks_of(page: str) -> list[tuple[str | None, str]]:
    """Return a page's Python, each block with the name of the file that the line before it gives."""
    text = (HOW_TO / page).read_text("utf-8")
    found = re.finditer(
        r"(?:^[^\n`]*`(?P<name>[\w/]+\.py)`:\n\n)?^```python\n(?P<code>.*?)^```",
        text,
        re.DOTALL | re.MULTILINE,
    )
    return [(block["name"], block["code"]) for block in found]


def block_with(page: str, text: str) -> str:
    """Return the one block that has this text."""
    (block,) = [code for _, code in blocks_of(page) if text in code]
    return block


def counts_in(page: str) -> list[str]:
    """Return what a page says that pytest prints in the end."""
    return re.findall(r"^(\d+ passed) in", (HOW_TO / page).read_text("utf-8"), re.MULTILINE)


def run_pytest(
    folder: Path, files: Mapping[str, str], *arguments: str, loads_plugins: bool = False
) -> str:
    """Write files and run pytest among them; return what it printed."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    environment = {name: value for name, value in os.environ.items() if name != NO_PLUGINS}
    if not loads_plugins:
        # Those that happen to be installed here take seconds to load.
        environment[NO_PLUGINS] = "1"
        command += ["-p", "anyio"]
    ran = subprocess.run(
        [*command, "--import-mode=importlib", "--strict-markers", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return ran.stdout + ran.stderr


def test_an_app_teams_tests_pass(tmp_path: Path) -> None:
    """The example, over both doors; what waits while the test goes on; and a host of one's own."""
    page = "test-your-app.md"
    named = {name: code for name, code in blocks_of(page) if name is not None}
    example = named["test_product_photos.py"]
    files = {
        "conftest.py": block_with(page, "pytest_plugins"),
        "product_photos.py": named["product_photos.py"],
        "test_product_photos.py": example,
        "wsgi/conftest.py": block_with(page, "s3edge_wsgi"),
        "wsgi/test_product_photos.py": example,
        "wsgi/test_waiting.py": block_with(page, "standing_still"),
        "test_waiting.py": block_with(page, "standing_still"),
        "mounted/test_mounted.py": block_with(page, "Mount("),
    }
    printed = run_pytest(tmp_path, files, "-o", "pythonpath=.")
    count = example.count("\ndef test_")
    assert counts_in(page) == [f"{count} passed"]
    assert f"{2 * count + 3} passed" in printed, printed


MINE = """
import sys

import pytest

import s3edge.client


def test_mine(request):
    with pytest.raises(pytest.FixtureLookupError):
        request.getfixturevalue("s3edge_clock")
    assert not [line for line in request.config.getini("markers") if line.startswith("s3edge")]
    assert not [name for name in sys.modules if name.startswith("s3edge.testing")]
"""


def test_nothing_is_there_that_was_not_asked_for(tmp_path: Path) -> None:
    """Whoever installs s3edge has no fixture and no marker of it until they switch them on."""
    assert not [each for each in entry_points(group="pytest11") if "s3edge" in each.value]
    assert "1 passed" in run_pytest(tmp_path, {"test_mine.py": MINE}, loads_plugins=True)
    switched_on = run_pytest(tmp_path, {}, "-p", PLUGIN)
    assert "DID NOT RAISE" in switched_on


def test_the_client_needs_no_pytest() -> None:
    """Nor do the command line and the server, which import no test helper."""
    program = (
        "import sys; sys.modules['pytest'] = None;"
        "import s3edge.client, s3edge.cli.server, s3edge_starlette, s3edge_wsgi;"
        "sys.exit(any(name.startswith('s3edge.testing') for name in sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


WITHOUT = """
import sys

sys.modules["starlette"] = sys.modules["dotenv"] = None
pytest_plugins = ["s3edge.testing.pytest_plugin"]
"""

NEEDING = """
from pathlib import Path

import pytest

from s3edge.config import SettingsError, build, read_environment


def test_client(s3edge_client): pass


def test_settings(tmp_path):
    (tmp_path / "env").write_text("A=1")
    with pytest.raises(SettingsError, match=r"'python-dotenv'; pip install 's3edge\\[server\\]'"):
        read_environment(tmp_path / "env")
"""


def test_what_is_not_installed_is_named_with_its_extra(tmp_path: Path) -> None:
    """In one line; and what does not need it does without."""
    printed = run_pytest(tmp_path, {"conftest.py": WITHOUT, "test_needing.py": NEEDING})
    assert "1 passed, 1 error" in printed, printed
    advice = r"s3edge_app needs the package 'starlette[.\w]*'; pip install 's3edge\[starlette\]'"
    assert re.search(rf"^the fixture {advice}$", printed, re.MULTILINE), printed
    assert "During handling" not in printed


MARKED = """
import pytest


@pytest.mark.s3edge(credits=3)
def test_unknown(s3edge_client): pass


@pytest.mark.s3edge(3)
def test_positional(s3edge_client): pass


@pytest.mark.s3edge(rate_limits="free=3")
def test_unreadable(s3edge_client): pass
"""


def test_a_marker_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """It says what there is."""
    printed = run_pytest(tmp_path, {"test_mine.py": MARKED}, "-p", PLUGIN)
    assert "does not know credits; it takes rate_limits, initial_credits" in printed
    assert "takes keywords only" in printed
    assert "cannot read 'free=3'" in printed
    assert "3 errors" in printed
