"""An editor that is pointed at a call shows what the call does, in either colour."""

import inspect

import jedi
import pytest

from s3edge import client
from tests.architecture.test_client import PAIRS, function_of, members_of


TYPED = """\
from s3edge.client import {name}


def hovered(it: {name}) -> None:
    {members}
"""
"""What stands in the editor; types come from the package alone, as they do there."""

KINDS = [kind for pair in PAIRS for kind in pair]

CHAINED = """\
from s3edge.client import Client

with Client() as client:
    client.segment(client.upload("cat.jpg"), "the cat").wait().mask.save("mask.png")
"""

AWAITED = """\
from s3edge.client import AsyncClient


async def main() -> None:
    async with AsyncClient() as client:
        image = await client.upload("cat.jpg")
        task = await client.segment(image, "the cat")
        result = await task.wait()
        await result.mask.save("mask.png")
"""


def shown(editor: jedi.Script, source: str, member: str) -> str:
    """Return what an editor shows over the first place where a member is named."""
    before, found, _ = source.partition(f".{member}")
    assert found
    (hovered,) = editor.help(before.count("\n") + 1, len(before.split("\n")[-1]) + 1)
    return str(hovered.docstring(raw=True))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_hovering_shows_the_docs(kind: type) -> None:
    """Over every method and property that a class has of its own."""
    members = {name: it for name, it in members_of(kind).items() if not name.startswith("_")}
    source = TYPED.format(
        name=kind.__name__, members="\n    ".join(f"it.{name} " for name in members) or "pass"
    )
    editor = jedi.Script(source)
    for name, member in members.items():
        expected = inspect.getdoc(function_of(member))
        assert expected
        assert shown(editor, source, f"{name} ") == expected


@pytest.mark.parametrize(("source", "prefix"), [(CHAINED, ""), (AWAITED, "Async")])
def test_hovering_shows_the_docs_all_the_way(source: str, prefix: str) -> None:
    """From an image to its mask, through what each call returns."""
    editor = jedi.Script(source)
    for kind, member in [
        ("Client", "upload"),
        ("Client", "segment"),
        ("Task", "wait"),
        ("Mask", "save"),
    ]:
        method = getattr(getattr(client, prefix + kind), member)
        assert shown(editor, source, member) == inspect.getdoc(method)
