"""Every end-to-end test runs over every door, or the reason is written down; and no reason is stale."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.doors import DOORS, ONE_DOOR, is_decided


E2E = Path(__file__).parent.parent / "e2e"


def named_below(folder: Path) -> Iterator[str]:
    """Yield each file of tests, and each test in it, as the list of reasons names them."""
    for path in folder.rglob("test_*.py"):
        file = path.relative_to(folder).as_posix()
        yield file
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) if name.startswith("test_"):
                    yield f"{file}::{name}"


def test_no_reason_is_stale() -> None:
    """What is on the list is there, once, with a reason."""
    found = set(named_below(E2E))
    assert len(found) > 100
    assert ONE_DOOR.keys() - found == set()
    assert [name for name in ONE_DOOR if "::" in name and name.partition("::")[0] in ONE_DOOR] == []
    assert all(reason.strip() for reason in ONE_DOOR.values())
    assert len({door.name for door in DOORS}) == len(DOORS) == 3


@pytest.mark.parametrize(
    ("test", "fixtures", "chosen_by_hand", "is_fine"),
    [
        ("test_new.py::test_walk", ["door", "scene"], False, True),
        ("test_new.py::test_walk", ["server", "scene"], False, False),
        ("test_new.py::test_walk", ["door", "scene"], True, False),
        ("test_stop.py::test_new", ["server"], False, True),
        ("cloud/test_stop.py::test_new", ["server"], False, False),
    ],
)
def test_a_test_over_one_door_is_found(
    test: str, fixtures: list[str], chosen_by_hand: bool, is_fine: bool
) -> None:
    """Whoever takes no door, or some only, must be on the list."""
    assert is_decided(test, fixtures, chosen_by_hand) is is_fine
