"""The lists that tools cannot make by themselves are complete."""

import ast
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from s3edge import plugins


ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
ADAPTERS = sorted(path.parent.name for path in (ROOT / "adapters").glob("*/__init__.py"))
SOURCES = sorted(
    path for folder in ("s3edge", "adapters", "examples") for path in (ROOT / folder).rglob("*.py")
)


def test_import_linter_knows_every_adapter() -> None:
    """A new adapter's imports are checked from its first day."""
    linter = PYPROJECT["tool"]["importlinter"]
    assert linter["root_packages"] == ["s3edge", *ADAPTERS]
    by_id = {contract["id"]: contract for contract in linter["contracts"]}
    assert by_id["adapters-are-apart"]["modules"] == ADAPTERS
    assert by_id["adapters-know-the-core-only"]["source_modules"] == ADAPTERS
    assert set(ADAPTERS) < set(by_id["core-knows-no-vendor"]["forbidden_modules"])


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_typed_and_says_what_it_needs(name: str) -> None:
    """Each has ``py.typed``, a docstring about permissions and failures, and a test of its own."""
    package = ROOT / "adapters" / name
    assert (package / "py.typed").exists()
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text("utf-8")))
    assert docstring is not None
    assert len(docstring) > 100
    # What implements no port has no contract to conform to.
    folder = "tests/unit/aiohttp" if name == "s3edge_aiohttp" else "tests/conformance"
    tests = "".join(path.read_text("utf-8") for path in (ROOT / folder).glob("*.py"))
    assert f"from {name}" in tests


@pytest.mark.parametrize("group", sorted(PYPROJECT["project"]["entry-points"]))
def test_every_entry_point_can_be_loaded(group: str) -> None:
    """What is registered exists and can be called."""
    found = entry_points(group=group)
    assert found
    for entry in found:
        assert callable(plugins.load(group, entry.name))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_what_it_is_for(path: Path) -> None:
    """Every source file begins with a docstring, and is short enough to be read in one go."""
    source = path.read_text("utf-8")
    assert ast.get_docstring(ast.parse(source))
    # A contract suite is a list of promises, read one by one.
    assert source.count("\n") <= 500 or "contracts" in path.parts
