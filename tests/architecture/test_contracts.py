"""The ports' docstrings and the contract suites say the same, and nobody overrides a suite's test."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3edge import ports, testing


CONFORMANCE = Path(__file__).parent.parent / "conformance"

PORTS = {
    port.__name__: port
    for port in vars(ports).values()
    if inspect.isclass(port) and ports.Checked in port.__mro__[1:]
}

DOOR = "DoorContract"

SUITES = {
    name: suite
    for name, suite in vars(testing).items()
    if inspect.isclass(suite) and name.endswith("Contract")
}

PROMISES = re.compile(r"^Implementations must:\n((?:[ ]{4}.*\n?)+)", re.MULTILINE)
NAME = re.compile(r"``(test_\w+)``")


def promises_of(port: type) -> Iterator[tuple[str, str]]:
    """Yield each sentence under "Implementations must", with the method that it is said of."""
    for name, method in inspect.getmembers(port, inspect.isfunction):
        if name.startswith("_"):
            continue
        for section in PROMISES.findall(inspect.getdoc(method) or ""):
            text = " ".join(section.split())
            yield from ((name, sentence) for sentence in re.split(r"(?<=\.) (?=[A-Z])", text))


def suite_tests(suite: type) -> set[str]:
    """Return the names of a suite's tests."""
    return {name for name in dir(suite) if name.startswith("test_")}


def overrides_in(source: str) -> list[str]:
    """Return the tests that classes of a module redefine although they inherit them from a suite."""
    tree = ast.parse(source)
    suites = {name: suite_tests(suite) for name, suite in SUITES.items()}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name in SUITES and alias.asname is not None:
                    suites[alias.asname] = suites[alias.name]
    overrides = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            inherited = {test for base in node.bases for test in suites.get(_last_name(base), ())}
            if inherited:
                suites[node.name] = inherited
                taken = inherited | {"__test__", "pytestmark"}
                overrides += [f"{node.name}.{name}" for name in _names_bound_in(node) & taken]
    return sorted(overrides)


def _last_name(base: ast.expr) -> str:
    return ast.unparse(base).rpartition(".")[2]


def _names_bound_in(node: ast.ClassDef) -> set[str]:
    names = set()
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_every_port_has_a_suite() -> None:
    """Each port that a dependency stands behind has a suite of its name; doors have one besides."""
    assert set(SUITES) == {f"{name}Contract" for name in PORTS} | {DOOR}


@pytest.mark.parametrize("name", PORTS)
def test_every_promise_names_its_test(name: str) -> None:
    """No port promises what no test checks."""
    promises = list(promises_of(PORTS[name]))
    assert len(promises) > len(vars(PORTS[name])) // 4
    assert [promise for promise in promises if not NAME.search(promise[1])] == []


@pytest.mark.parametrize("name", PORTS)
def test_a_suite_checks_what_its_port_promises(name: str) -> None:
    """The tests that a port names are those of its suite, neither fewer nor more."""
    named = {test for _, promise in promises_of(PORTS[name]) for test in NAME.findall(promise)}
    assert suite_tests(SUITES[f"{name}Contract"]) == named


@pytest.mark.parametrize("name", SUITES)
def test_a_suites_tests_are_async_and_described(name: str) -> None:
    """Each test of a suite runs on the loop and says in one sentence what it checks."""
    for test in suite_tests(SUITES[name]):
        function = getattr(SUITES[name], test)
        # A door is called from outside, over a socket, so its tests need no loop.
        assert inspect.iscoroutinefunction(function) is (name != DOOR), test
        assert re.fullmatch(r"[^.\n]+\.", inspect.getdoc(function) or ""), test


@pytest.mark.parametrize("path", sorted(CONFORMANCE.glob("*.py")), ids=lambda path: path.name)
def test_no_adapter_overrides_a_promise(path: Path) -> None:
    """An adapter passes its suite as it is."""
    assert overrides_in(path.read_text("utf-8")) == []


def test_overrides_are_found() -> None:
    """A redefined, assigned or switched-off test is noticed, behind another name too."""
    source = """
from s3edge import testing
from s3edge.testing import DatabaseContract as Suite

class TestMine(Suite):
    harness = None
    async def test_check_passes(self): ...
    def test_of_my_own(self): ...

class TestDerived(TestMine):
    test_accounts_add_up = None

class TestOther(testing.RateLimiterContract):
    __test__: bool = False

class TestAlone:
    def test_check_passes(self): ...
"""
    assert overrides_in(source) == [
        "TestDerived.test_accounts_add_up",
        "TestMine.test_check_passes",
        "TestOther.__test__",
    ]
