"""The SDK's two clients are one, its public names are said, and it needs no server."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from s3edge import client


ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference" / "sdk.md"

PAIRS = [
    (client.Client, client.AsyncClient),
    (client.RawClient, client.AsyncRawClient),
    (client.Task, client.AsyncTask),
    (client.Result, client.AsyncResult),
    (client.ListedResult, client.AsyncListedResult),
    (client.Results, client.AsyncResults),
    (client.Mask, client.AsyncMask),
]

WITHOUT_IO = {
    *("Client.for_app", "Client.task", "Client.results", "Client.with_options"),
    *("Client.with_raw_response", "Client.__init__", "Client.__repr__"),
}
"""What sends nothing is not awaited in either colour."""

COLOURS = {"__aiter__": "__iter__", "__aenter__": "__enter__", "__aexit__": "__exit__"}


def members_of(kind: type) -> dict[str, Any]:
    """Return what a class says of itself that others may use, by the name in the blocking colour."""
    return {
        COLOURS.get(name, name): member
        for name, member in vars(kind).items()
        if (not name.startswith("_") or name in {*COLOURS, *COLOURS.values(), "__init__"})
        and (callable(member) or isinstance(member, property | classmethod))
    }


def function_of(member: Any) -> Any:
    """Return the function behind a method, a class method or a property."""
    if isinstance(member, property):
        return member.fget
    return getattr(member, "__func__", member)


def colourless(text: object) -> str:
    """Return a text in which the two colours' names are the same."""
    return re.sub(r"aio_|sync_", "", re.sub(r"Async(?=[A-Z])|\bAsync", "", str(text)))


def signature_of(member: Any) -> list[tuple[str, str, object, str]]:
    """Return a function's parameters, with kinds, defaults and types, and what it returns."""
    signature = inspect.signature(function_of(member))
    parameters = [
        (each.name, str(each.kind), each.default, colourless(each.annotation))
        for each in signature.parameters.values()
    ]
    return [*parameters, ("return", "", None, colourless(signature.return_annotation))]


def members() -> list[Any]:
    """Return each public member of each pair, for a test of its own."""
    return [
        pytest.param(blocking, awaited, name, id=f"{blocking.__name__}.{name}")
        for blocking, awaited in PAIRS
        for name in members_of(blocking)
    ]


@pytest.mark.parametrize(("blocking", "awaited"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_colours_have_the_same_names(blocking: type, awaited: type) -> None:
    """Neither has a member that the other has not, nor another docstring."""
    assert list(members_of(awaited)) == list(members_of(blocking))
    assert re.sub(r"Async(?=[A-Z]|HTTP)", "", inspect.getdoc(awaited) or "") == (
        inspect.getdoc(blocking) or ""
    )


@pytest.mark.parametrize(("blocking", "awaited", "name"), members())
def test_both_colours_have_the_same_signature(blocking: type, awaited: type, name: str) -> None:
    """Names, order, kinds, defaults and types of parameters, and the type that is returned."""
    mine, theirs = members_of(blocking)[name], members_of(awaited)[name]
    assert signature_of(theirs) == signature_of(mine)


@pytest.mark.parametrize(("blocking", "awaited", "name"), members())
def test_both_colours_have_the_same_docstring(blocking: type, awaited: type, name: str) -> None:
    """Whoever reads one has read the other."""
    mine, theirs = members_of(blocking)[name], members_of(awaited)[name]
    documented = inspect.getdoc(function_of(mine))
    assert documented
    assert colourless(inspect.getdoc(function_of(theirs))) == documented


@pytest.mark.parametrize(("blocking", "awaited", "name"), members())
def test_what_sends_is_awaited(blocking: type, awaited: type, name: str) -> None:
    """In the one colour nothing is a coroutine, in the other whatever does something."""
    mine = function_of(members_of(blocking)[name])
    theirs = function_of(members_of(awaited)[name])
    awaits = inspect.iscoroutinefunction(theirs) or inspect.isasyncgenfunction(theirs)
    assert not inspect.iscoroutinefunction(mine)
    assert awaits is (f"{blocking.__name__}.{name}" not in WITHOUT_IO and name != "__init__")


def test_public_names_are_said_and_sorted() -> None:
    """``__all__`` is what the package imports, in order."""
    tree = ast.parse(Path(client.__file__).read_text("utf-8"))
    imported = [
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert client.__all__ == sorted(imported)


ALLOWED = ("s3edge", "httpx", "attr", "attrs", "msgspec")
"""With what httpx itself needs."""

OF_HTTPX = ("httpcore", "h11", "certifi", "idna", "anyio", "sniffio")

PROGRAM = f"""
import sys

class Wall:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in {ALLOWED + OF_HTTPX}:
            return None
        raise ModuleNotFoundError(f"blocked: {{name}}", name=name)

sys.meta_path.insert(0, Wall())
import s3edge.client as client

with client.Client(base_url="http://127.0.0.1:1", token="t", max_retries=0) as made:
    try:
        made.me()
    except client.ConnectionFailed:
        print("works")
print(*sorted(name for name in sys.modules if name.startswith(("s3edge.", "anyio"))))
"""


def test_the_client_needs_no_server() -> None:
    """It is imported and used with nothing there but httpx, attrs and msgspec."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    worked, loaded = ran.stdout.splitlines()
    assert worked == "works"
    others = {name.split(".")[1] for name in loaded.split() if name.startswith("s3edge.")}
    assert others == {"client", "errors", "rules", "values"}


def test_only_the_drivers_know_the_http_library() -> None:
    """Whatever else import-linter is told, no other file names it in an import."""
    folder = Path(client.__file__).parent
    knowing = {
        path.relative_to(folder).parts[0]
        for path in folder.rglob("*.py")
        if re.search(r"^\s*(import|from) httpx", path.read_text("utf-8"), re.MULTILINE)
    }
    assert knowing == {"drivers"}


def test_the_extra_brings_no_server() -> None:
    """``s3edge[client]`` adds the HTTP library alone to what the core needs."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needs = [*pyproject["dependencies"], *pyproject["optional-dependencies"]["client"]]
    names = {re.split(r"[<>=\[;]", need)[0] for need in needs}
    assert names == {"anyio", "attrs", "httpx", "msgspec", "pillow", "python-multipart"}
    assert (ROOT / "s3edge" / "py.typed").exists()


def test_every_promise_names_tests_that_exist() -> None:
    """The table in the reference names at least one test in each row, and none that is not there."""
    text = REFERENCE.read_text("utf-8")
    table = text[text.index("| point |") : text.index("The tests are in")]
    rows = [line for line in table.splitlines()[2:] if line]
    assert len(rows) == 17
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row)
        assert named, row
        for file, test in named:
            path = ROOT / "tests" / re.sub(r"^client/", "unit/client/", file)
            assert f"def {test}(" in path.read_text("utf-8"), (file, test)


def test_every_exception_is_in_the_reference() -> None:
    """The table of exceptions has each class with its code, and no other."""
    text = REFERENCE.read_text("utf-8")
    rows = dict(re.findall(r"^\| `([A-Z]\w+)` \| `([A-Z_]+)` \|", text, re.MULTILINE))
    assert rows == {
        name: kind.default_code
        for name, kind in vars(client).items()
        if inspect.isclass(kind)
        and issubclass(kind, client.S3EdgeError)
        and kind not in {client.S3EdgeError, client.TaskError}
    }
