"""
The Dart client of "Call it from Flutter" is Dart, and speaks as the server does.

No Dart is to be had here, so it is not run. It is parsed by a grammar of the language; what it sends is
read off its text and sent to a real server; and what it reads must be in the answers.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import tree_sitter_dart
from attrs import frozen
from tree_sitter import Language, Node, Parser

from s3edge.errors import Code
from s3edge.rules.images import CONTENT_TYPES
from s3edge.testing.server import ServerProcess
from s3edge.values import TaskStatus
from s3edge.web.statuses import STATUS_OF


PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "call-from-flutter.md"
BLOCKS: Sequence[str] = re.findall(r"```dart\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
CLIENT = BLOCKS[0]

DART = Language(tree_sitter_dart.language())

OWN_CODES = {"NO_ANSWER", "NO_MASK", "STILL_RUNNING"}
"""What the client says in words like the API's."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Return a server that lets a free user read once."""
    server = ServerProcess(
        tmp_path_factory.mktemp("server"), {"S3EDGE_RATE_LIMITS": "free.read=1/hour"}
    )
    server.start()
    yield server
    server.kill()


def nodes(node: Node) -> Iterator[Node]:
    """Yield a node of the syntax tree and all beneath it."""
    yield node
    for child in node.children:
        yield from nodes(child)


def parsed(source: str) -> Node:
    """Return the syntax tree of a program."""
    return Parser(DART).parse(source.encode()).root_node


def text_of(node: Node) -> str:
    """Return what a node is written as."""
    return (node.text or b"").decode()


@frozen
class Sent:
    """
    A request of one method of the client, and what the method reads of the answer.

    Attributes:
        method: Of HTTP.
        path: With Dart's variables in it.
        query: Names and values.
        headers: Names.
        file: The name of the multipart field; empty in other requests.
        body: The names in a JSON body.
        reads: The fields of the answer that are read.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Collection[str]
    file: str
    body: Collection[str]
    reads: Collection[str]


def methods() -> Mapping[str, str]:
    """Return the text of each of the client's methods, by name, without comments."""
    found: dict[str, str] = {}
    for node in nodes(parsed(re.sub(r"^ *///? .*\n", "", CLIENT, flags=re.MULTILINE))):
        if node.type == "function_body" and node.prev_sibling is not None:
            signature = re.search(r"(\w+)(?:<\w+>)?\(", text_of(node.prev_sibling))
            if signature is not None:
                found[signature[1]] = text_of(node)
    return found


def sent_by(name: str) -> Sent:
    """Read off a method what it sends and reads."""
    text = methods()[name]
    request = re.search(
        r"http\.(?:Multipart)?Request\('(\w+)', _at\('([^']+)'(?:, \{([^}]*)\})?\)\)", text
    )
    assert request is not None
    body = re.search(r"jsonEncode\(\{(.*?)\}\)", text)
    file = re.search(r"http\.MultipartFile\(\s*'(\w+)'", text)
    return Sent(
        method=request[1],
        path=request[2],
        query=dict(re.findall(r"'(\w+)': '(\w+)'", request[3] or "")),
        headers=re.findall(r"\.\.headers\['([\w-]+)'\]", text),
        file=file[1] if file else "",
        body=re.findall(r"'(\w+)':", body[1]) if body else (),
        reads=re.findall(r"(?<!headers)\['(\w+)'\]", text),
    )


CALLS = {
    name: sent_by(name) for name, text in methods().items() if "_call(" in text and "_at(" in text
}


def by_code() -> Mapping[str, str]:
    """Return the exception that the client throws for each code that it names."""
    arms = re.findall(r"^ +((?:'[A-Z_]+'(?: \|\| )?)+) =>\s+(\w+)\(", CLIENT, re.MULTILINE)
    return {code: kind for codes, kind in arms for code in re.findall(r"[A-Z_]+", codes)}


def test_it_looks_for_ends_that_there_are() -> None:
    """A task's two last statuses, and no other."""
    cases = set(re.findall(r"case '(\w+)':", methods()["wait"]))
    assert cases == {TaskStatus.DONE.value, TaskStatus.ERROR.value}


@pytest.mark.parametrize("source", BLOCKS, ids=range(len(BLOCKS)))
def test_it_is_dart(source: str) -> None:
    """Every block of the page parses, without an error and with nothing missing."""
    broken = [node for node in nodes(parsed(source)) if node.is_error or node.is_missing]
    assert [(node.start_point.row + 1, text_of(node)) for node in broken] == []


def test_the_parser_sees_what_is_broken() -> None:
    """Else the test above could not fail."""
    assert not parsed(CLIENT).has_error
    for before, after in [
        ("final Object? body;", "final Object? body"),
        ("await", "await await ;"),
    ]:
        assert parsed(CLIENT.replace(before, after, 1)).has_error


def test_every_word_of_its_is_accounted_for() -> None:
    """No string of the client's is left that the tests below do not look at, but prose."""
    literals = {
        text_of(node)[1:-1]
        for node in nodes(parsed(CLIENT))
        if node.type == "string_literal" and node.parent and node.parent.type != "uri"
    }
    words = {literal for literal in literals if " " not in literal}
    known = {"$baseUrl$path", "image", "application/json", "Authorization", "retry-after"}
    known |= {"success", "data", "error", "code", "message", "done"}
    known |= {*by_code(), *OWN_CODES}
    for call in CALLS.values():
        known |= {call.method, call.path, *call.query, *call.query.values(), *call.headers}
        known |= {*call.body, *call.reads, *filter(None, [call.file])}
    assert words - {""} == known


def test_its_exceptions_are_of_the_apis_codes() -> None:
    """Each code is one of the API's; those of a kind are together; what may pass is repeated."""
    kinds = {401: "SignInAgain", 403: "SignInAgain", 402: "OutOfCredits"}
    kinds |= dict.fromkeys((429, 500, 503), "TryLater")
    of_tasks_only = {Code.INFERENCE_FAILED, Code.MODEL_NOT_LOADED}
    expected = {
        code.value: kinds[STATUS_OF[code]]
        for code in set(Code) - of_tasks_only
        if STATUS_OF[code] in kinds
    }
    assert by_code() == expected
    assert OWN_CODES.isdisjoint(Code)


def test_what_it_says_of_images_is_so() -> None:
    """The types that its comment names are those that the server takes."""
    assert set(re.findall(r"image/\w+", CLIENT)) == set(CONTENT_TYPES)


def test_it_speaks_as_the_server_does(server: ServerProcess, scene: bytes) -> None:
    """What each method sends is accepted, and what it reads is in the answer, as text."""
    assert set(CALLS) == {"upload", "segment", "wait", "mask"}
    documented = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    values: dict[str, str] = {"text_prompt": "red", "Idempotency-Key": "a-key"}
    # package:http adds the charset.
    values["Content-Type"] = "application/json; charset=utf-8"
    with server.client() as client:
        for name, call in CALLS.items():
            operation = documented[re.sub(r"\$\w+", "{id}", call.path)][call.method.lower()]
            # The server ignores parameters that it does not know.
            assert set(call.query) <= {each["name"] for each in operation.get("parameters", ())}
            answers = [sent(client, call, values, scene) for _ in range(2)]  # a repeat, too
            assert all(answer.is_success for answer in answers), (name, answers[0].text)
            data = answers[-1].json()["data"]
            reads = set(call.reads) - {"error_code", "error_message"}
            assert reads
            for field in reads:
                assert isinstance(data[field], str), (name, field)
            values |= {field: data[field] for field in reads}
        # One key, one task: the repeat was none of its own.
        assert [
            value["id"] for value in client.get("/api/v1/results").json()["data"]["results"]
        ] == [values["task_id"]]
        assert values["status"] == TaskStatus.DONE
    mask = httpx.get(values["mask_image_url"])
    assert mask.status_code == 200, "without the token"
    assert mask.content.startswith(b"\x89PNG")


def sent(
    client: httpx.Client, call: Sent, values: Mapping[str, str], scene: bytes
) -> httpx.Response:
    """Send what a method of the client would."""
    more: dict[str, Any] = {}
    if call.body:
        more["content"] = httpx.Request(
            "POST", "http://x", json={name: values[name] for name in call.body}
        ).content
    if call.file:
        more["files"] = {call.file: ("image", scene, "image/png")}
    if call.query:
        more["params"] = call.query
    return client.request(
        call.method,
        call.path.replace("$taskId", values.get("task_id", "")),
        headers={name: values[name] for name in call.headers},
        **more,
    )


def test_it_reads_how_a_segmentation_failed(server: ServerProcess, scene: bytes) -> None:
    """A task that ends in an error has what the client reads then, as text."""
    with server.client() as client:
        # Cut short behind its header, an image is accepted and cannot be segmented.
        values = {"text_prompt": "red", "Idempotency-Key": "a-key"}
        values["Content-Type"] = "application/json"
        image = sent(client, CALLS["upload"], values, scene[:60]).json()["data"]
        values |= image
        values |= sent(client, CALLS["segment"], values, scene).json()["data"]
        task = sent(client, CALLS["wait"], values, scene).json()["data"]
        assert task["status"] == TaskStatus.ERROR
        for field in CALLS["wait"].reads:
            assert isinstance(task[field], str)


def test_it_reads_refusals_as_they_are(server: ServerProcess) -> None:
    """Code and message are where its pattern looks, and the pause is in the header that it names."""
    pattern = re.search(r"body case \{'(\w+)': \{'(\w+)': .*?, '(\w+)': ", methods()["_data"])
    header = re.search(r"response\.headers\['([\w-]+)'\]", methods()["_data"])
    sign_in = re.search(r"request\.headers\['(\w+)'\] = 'Bearer ", methods()["_data"])
    assert pattern
    assert header
    assert sign_in
    with server.client(tier="free") as client:
        assert sign_in[1] in client.build_request("GET", "/").headers
        client.get("/api/v1/me")
        refused = client.get("/api/v1/me")
    error = refused.json()[pattern[1]]
    assert (error[pattern[2]], isinstance(error[pattern[3]], str)) == ("RATE_LIMITED", True)
    assert int(refused.headers[header[1]]) > 0
