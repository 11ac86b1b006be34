"""What the pages say is in the log is what the code logs."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
METHODS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
}
"""The level of what each method logs."""


def logged() -> Iterator[tuple[str, str]]:
    """Yield the level and the text of every line that the sources can log, with its placeholders."""
    for folder in ("s3edge", "adapters"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                match node:
                    case ast.Call(
                        func=ast.Attribute(attr=method), args=[ast.Constant(value=str(text)), *_]
                    ) if method in METHODS:
                        yield METHODS[method], text


LOGGED = list(logged())


def is_logged(level: str, event: str) -> bool:
    """Tell whether a line of the log can say this; a placeholder stands for anything but nothing."""
    return any(
        level == its_level
        and re.fullmatch(".+".join(map(re.escape, re.split(r"%[\d.]*[a-z]", text))), event)
        for its_level, text in LOGGED
        if text != "%s"
    )


def quoted() -> Iterator[tuple[str, str]]:
    """Yield the level and the event of every line of the log that a page shows."""
    for page in PAGES:
        for line in re.findall(r'^\{"event": .*\}$', page.read_text("utf-8"), re.MULTILINE):
            record = json.loads(line)
            yield record["level"], record["event"]


def alerts() -> list[str]:
    """Return the pieces of lines that operators are told to look for."""
    page = (ROOT / "docs" / "how-to" / "operate.md").read_text("utf-8")
    paragraph = re.search(
        r"^Worth an alert: level `error`;(.*?)\n\n", page, re.MULTILINE | re.DOTALL
    )
    assert paragraph is not None
    return [" ".join(piece.split()) for piece in re.findall(r"`([^`]+)`", paragraph[1])]


@pytest.mark.parametrize(("level", "event"), list(quoted()))
def test_lines_in_the_docs_are_logged(level: str, event: str) -> None:
    """Whoever looks for an example's words in a log finds them."""
    assert is_logged(level, event)


@pytest.mark.parametrize("piece", alerts())
def test_an_alert_can_ring(piece: str) -> None:
    """Each piece is in some line's fixed text."""
    assert any(piece in text for _, text in LOGGED)


def test_what_nobody_logs_is_found_out() -> None:
    """The words must be the line's own, and its level too."""
    assert is_logged("info", "task 1 was held by nobody; attempt 2 begins")
    assert not is_logged("error", "task 1 was held by nobody; attempt 2 begins")
    assert not is_logged("info", "task 1 was held by nobody; it is dispatched again")
