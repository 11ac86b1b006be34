"""Asking for a segmentation: what is accepted, what it costs, and that a repeat is free."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
from attrs import evolve

from s3edge.errors import unavailable
from s3edge.gateway import Gateway, GatewayOptions
from s3edge.memory import MemoryDatabase, MemoryObjectStorage
from s3edge.rules.keys import mask_key, upload_key
from s3edge.values import NewTask, Reservation, ResultQuery, User
from s3edge.web.http import ClientDisconnected, Response


pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[Response]]
Check = Callable[..., dict[str, Any]]
Balance = Callable[[User], Awaitable[int]]
MakeImage = Callable[[User], Awaitable[UUID]]
Refused = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
async def image_id(image_of: MakeImage, alice: User) -> str:
    """Have an image of Alice's in storage."""
    return str(await image_of(alice))


@pytest.fixture
def image_url(storage: MemoryObjectStorage, alice: User, image_id: str) -> str:
    """Name it by its URL."""
    return storage.url_for(upload_key(alice.user_id, UUID(image_id)))


@pytest.fixture
def refused(send: Send, error_of: Check, database: MemoryDatabase, alice: User) -> Refused:
    """Send a bad request and see that it leaves nothing: ``refused(status, code, json=...)``."""

    async def refused(
        status: int = 400, code: str = "INVALID_REQUEST", **request: Any
    ) -> dict[str, Any]:
        before = (await database.profile(alice)).credits
        tasks = (await database.results(alice, ResultQuery(limit=100))).total
        error = error_of(await send("POST", "/api/v1/segment", **request), status, code)
        assert (await database.profile(alice)).credits == before
        assert (await database.results(alice, ResultQuery(limit=100))).total == tasks
        return error

    return refused


async def test_a_segmentation_is_accepted_and_paid(
    send: Send,
    data_of: Check,
    database: MemoryDatabase,
    alice: User,
    image_url: str,
    credits_of: Balance,
) -> None:
    """202 names the task and where to read it; one credit is taken."""
    response = await send(
        "POST", "/api/v1/segment", json={"image_url": image_url, "text_prompt": "  a cat "}
    )

    data = data_of(response, 202)
    assert data == {"task_id": data["task_id"], "status": "pending"}
    headers = dict(response.headers)
    assert headers["location"] == f"/api/v1/tasks/{data['task_id']}"
    assert "idempotent-replayed" not in headers
    task = await database.task(alice, UUID(data["task_id"]))
    assert task is not None
    assert task.text_prompt == "a cat"
    assert task.source_image_url == image_url.partition("?")[0]
    assert await credits_of(alice) == 99


@pytest.mark.parametrize("project_id", [None, "00000000-0000-4000-8000-00000000b1ec"])
async def test_an_image_may_be_named_by_its_id(
    send: Send, data_of: Check, alice: User, image_id: str, project_id: str | None
) -> None:
    """``image_id`` stands in for the URL, and optional fields may be null."""
    body = {
        "image_id": image_id,
        "image_url": None,
        "text_prompt": "a cat",
        "project_id": project_id,
    }

    data = data_of(await send("POST", "/api/v1/segment", json=body), 202)
    result = data_of(await send("GET", f"/api/v1/results/{data['task_id']}"))

    assert result["project_id"] == project_id


async def test_a_url_is_good_without_its_signature(
    send: Send, data_of: Check, image_url: str
) -> None:
    """The permanent part of the URL is enough, and an expired signature is no fault."""
    for url in (image_url.partition("?")[0], image_url.partition("?")[0] + "?expires=1"):
        body = {"image_url": url, "text_prompt": "a cat"}
        data_of(await send("POST", "/api/v1/segment", json=body), 202)


async def test_unknown_fields_are_ignored(send: Send, data_of: Check, image_id: str) -> None:
    """Clients may be newer than the server."""
    body = {"image_id": image_id, "text_prompt": "a cat", "mode": "new"}

    data_of(await send("POST", "/api/v1/segment", json=body), 202)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"1",
        b"true",
        b"{}",
        b"{}{}",
        b"{'a': 1}",
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b"\x00",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"text_prompt": NaN}',
        b"text_prompt=a+cat",
    ],
)
async def test_a_body_that_is_no_object_is_refused(refused: Refused, body: bytes) -> None:
    """What does not parse, or is another type, is the client's fault."""
    await refused(body=body)


@pytest.mark.parametrize(
    "changes",
    [
        {"text_prompt": None},
        {"text_prompt": 1},
        {"text_prompt": ["a cat"]},
        {"text_prompt": {"a": "cat"}},
        {"text_prompt": True},
        {"text_prompt": ...},
        {"image_id": 1},
        {"image_id": "cat.png"},
        {"image_id": ""},
        {"image_id": "../../etc/passwd"},
        {"image_id": []},
        {"image_id": ...},
        {"image_id": None},
        {"image_url": "https://edge.test/x"},
        {"image_url": ""},
        {"image_id": ..., "image_url": 1},
        {"image_id": ..., "image_url": []},
        {"image_id": ..., "image_url": ""},
        {"image_id": ..., "image_url": None},
        {"project_id": "mine"},
        {"project_id": 1},
        {"project_id": {}},
    ],
)
async def test_a_field_of_a_wrong_type_is_named(
    refused: Refused, image_id: str, changes: dict[str, Any]
) -> None:
    """Missing, null, of another type, both images or none: 400 with the field's name."""
    body = {"image_id": image_id, "text_prompt": "a cat"} | changes

    error = await refused(json={name: value for name, value in body.items() if value is not ...})

    assert error["details"][0]["field"] in {"image_url", "image_id", "text_prompt", "project_id"}


@pytest.mark.parametrize(
    "prompt",
    [
        b'""',
        b'"   "',
        b'"\\t\\n"',
        b'"' + b"x" * 501 + b'"',
        b'"a\\u0000b"',
        b'"\\u0000"',
        b'"a\x00b"',
        b'"a\nb"',
        b'"a\\nb"',
        b'"a\\u001bb"',
        b'"a\\u007fb"',
        b'"a\\u0085b"',
        b'"\\ud800"',
        b'"a \\udfff b"',
        b'"\\udc00\\ud800"',
        b'"\\ud83d cat"',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b'"\xc0\x80"',
        b'"\xf5\x80\x80\x80"',
    ],
)
async def test_a_bad_prompt_is_refused(refused: Refused, image_id: str, prompt: bytes) -> None:
    """Empty, too long, control characters and surrogates, raw and as escapes."""
    await refused(body=b'{"image_id": "%s", "text_prompt": %s}' % (image_id.encode(), prompt))


@pytest.mark.parametrize(
    "prompt", ["x" * 500, " " * 9 + "x" * 500 + "\n", "\U0001f415" * 500, "Straße 犬", "\\ud800"]
)
async def test_a_prompt_at_the_limit_is_accepted(
    send: Send, data_of: Check, image_id: str, prompt: str
) -> None:
    """500 characters after trimming, of any script, as escapes or raw."""
    for ascii_only in (True, False):
        text = json.dumps({"image_id": image_id, "text_prompt": prompt}, ensure_ascii=ascii_only)
        data_of(await send("POST", "/api/v1/segment", body=text.encode()), 202)


FOREIGN = [
    "https://evil.test/cat.png",
    "http://169.254.169.254/latest/meta-data/",
    "http://localhost/media/x",
    "file:///etc/passwd",
    "ftp://edge.test/cat.png",
    "data:image/png;base64,AAAA",
    "https://edge.test/health",
    "https://edge.test/media/uploads/x",
    "/media/uploads/x",
    "not a url",
    "\x00",
    "é",
    "https://[::1",
    "x" * 2049,
]


@pytest.mark.parametrize("url", FOREIGN)
async def test_a_foreign_image_is_refused(refused: Refused, url: str) -> None:
    """The model's server fetches the URL, so only this deployment's own are let through."""
    error = await refused(json={"image_url": url, "text_prompt": "a cat"})

    assert error["details"][0]["field"] == "image_url"


@pytest.mark.parametrize(
    "change",
    [
        ("https://", "http://"),
        ("edge.test", "edge.test:444"),
        ("edge.test", "edge.test.evil.test"),
        ("edge.test", "edge.test@evil.test"),
        ("edge.test", "EDGE.TEST"),
        ("/media/", "/media//"),
        ("/media/", "/media/../media/"),
        ("uploads/", "uploads/../uploads/"),
        ("uploads/", "masks/"),
        ("?", "/x?"),
        ("?", "#?"),
        ("https://", " https://"),
    ],
)
async def test_a_url_that_is_nearly_ones_own_is_refused(
    refused: Refused, image_url: str, change: tuple[str, str]
) -> None:
    """Another scheme, port, host or path is another URL."""
    await refused(json={"image_url": image_url.replace(*change), "text_prompt": "a cat"})


async def test_a_surrogate_in_the_url_is_refused(refused: Refused) -> None:
    """A URL that cannot be written down is the client's fault."""
    await refused(body=b'{"image_url": "\\ud800", "text_prompt": "a cat"}')


async def test_another_users_image_is_refused_by_url(
    refused: Refused,
    image_of: MakeImage,
    storage: MemoryObjectStorage,
    bob: User,
) -> None:
    """A URL that storage made for somebody else is as foreign as any, whether it exists or not."""
    existing = storage.url_for(upload_key(bob.user_id, await image_of(bob)))
    absent = storage.url_for(upload_key(bob.user_id, uuid4()))

    errors = [
        await refused(json={"image_url": url, "text_prompt": "a cat"}) for url in (existing, absent)
    ]

    assert errors[0] == errors[1]


async def test_another_users_image_does_not_exist_by_id(
    refused: Refused, image_of: MakeImage, bob: User
) -> None:
    """404 for somebody else's image as for none, in the same words."""
    errors = [
        await refused(404, "NOT_FOUND", json={"image_id": str(image_id), "text_prompt": "a cat"})
        for image_id in (await image_of(bob), uuid4())
    ]

    assert errors[0] == errors[1]


async def test_ones_own_mask_is_no_image(
    refused: Refused, storage: MemoryObjectStorage, alice: User
) -> None:
    """Only uploads can be segmented."""
    url = storage.url_for(mask_key(alice.user_id, uuid4()))

    await refused(json={"image_url": url, "text_prompt": "a cat"})


async def test_an_image_that_is_gone_is_not_found(
    refused: Refused, storage: MemoryObjectStorage, alice: User
) -> None:
    """A URL of one's own that leads nowhere costs nothing."""
    url = storage.url_for(upload_key(alice.user_id, uuid4()))

    await refused(404, "NOT_FOUND", json={"image_url": url, "text_prompt": "a cat"})


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("https://pictures.test/cat.png", 202),
        ("http://PICTURES.test/cat.png?size=1", 202),
        ("https://pictures.test:8443/cat.png", 202),
        ("https://pictures.test:444/cat.png", 400),
        ("https://pictures.test@evil.test/cat.png", 400),
        ("https://evil.test/https://pictures.test/", 400),
        ("https://pictures.test\t/cat.png", 400),
        ("https://pictures.test\\@evil.test/", 400),
        ("ftp://pictures.test/cat.png", 400),
        ("//pictures.test/cat.png", 400),
    ],
)
async def test_the_operator_may_allow_further_hosts(
    send: Send, gateway: Gateway, url: str, status: int
) -> None:
    """A host is allowed by its exact name and port, over HTTP alone."""
    gateway.options = evolve(gateway.options, image_hosts={"pictures.test", "pictures.test:8443"})

    response = await send("POST", "/api/v1/segment", json={"image_url": url, "text_prompt": "cat"})

    assert response.status == status


@pytest.mark.parametrize("size_bytes", [64 * 1024 + 1, 10**6])
async def test_a_large_body_is_refused(refused: Refused, size_bytes: int) -> None:
    """More than 64 KiB of JSON has a code of its own."""
    await refused(413, "PAYLOAD_TOO_LARGE", body=b"{" + b" " * (size_bytes - 2) + b"}")


async def test_64_kib_are_read(send: Send, data_of: Check, image_id: str) -> None:
    """The limit itself is allowed."""
    body = json.dumps({"image_id": image_id, "text_prompt": "a cat"}).encode()

    data_of(await send("POST", "/api/v1/segment", body=body.ljust(64 * 1024)), 202)


async def test_an_endless_body_is_refused_soon(refused: Refused) -> None:
    """A body without an end is read to the limit and no further."""
    read_bytes = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read_bytes
        while True:
            read_bytes += 1000
            yield b" " * 1000

    await refused(413, "PAYLOAD_TOO_LARGE", body=chunks())

    assert read_bytes <= 64 * 1024 + 1000


async def test_a_client_that_stops_half_way_pays_nothing(
    send: Send, credits_of: Balance, alice: User
) -> None:
    """A request that never came whole is none."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"text_prompt":'
        raise ClientDisconnected

    with pytest.raises(ClientDisconnected):
        await send("POST", "/api/v1/segment", body=chunks())

    assert await credits_of(alice) == 100


class DownDatabase(MemoryDatabase):
    """Cannot reserve anything."""

    async def reserve_task(self, user: User, new: NewTask) -> Reservation:
        """Implement ``Database``."""
        raise unavailable("The database is down.")


async def test_a_database_that_is_down_charges_nothing(
    send: Send, gateway: Gateway, error_of: Check, image_id: str
) -> None:
    """503 says that the same request may succeed later."""
    gateway.database = DownDatabase(gateway.clock)

    response = await send(
        "POST", "/api/v1/segment", json={"image_id": image_id, "text_prompt": "a cat"}
    )

    error_of(response, 503, "SERVICE_UNAVAILABLE")
    assert "retry-after" in dict(response.headers)


async def test_an_empty_balance_is_refused(
    send: Send, refused: Refused, data_of: Check, gateway: Gateway, image_id: str
) -> None:
    """402 when the last credit is gone; nothing goes below zero."""
    gateway.options = GatewayOptions(rate_limits=None)
    body = {"image_id": image_id, "text_prompt": "a cat"}
    for _ in range(100):
        data_of(await send("POST", "/api/v1/segment", json=body), 202)

    await refused(402, "INSUFFICIENT_CREDITS", json=body)

    assert data_of(await send("GET", "/api/v1/me"))["credits"] == 0


async def segment(
    send: Send, key: str, image_id: str, prompt: str = "a cat", user: User | None = None
) -> Response:
    """Ask with an idempotency key."""
    asker = {} if user is None else {"user": user}
    return await send(
        "POST",
        "/api/v1/segment",
        json={"image_id": image_id, "text_prompt": prompt},
        headers={"idempotency-key": key},
        **asker,
    )


@pytest.mark.parametrize("repeat", ["k-1", '"k-1"'])
async def test_a_repeat_returns_the_first_answer(
    send: Send, data_of: Check, credits_of: Balance, alice: User, image_id: str, repeat: str
) -> None:
    """The same key with the same body, bare or in quotes, charges nothing."""
    first = await segment(send, "k-1", image_id)
    second = await segment(send, repeat, image_id)

    assert data_of(second, 202) == data_of(first, 202)
    assert "idempotent-replayed" not in dict(first.headers)
    assert dict(second.headers)["idempotent-replayed"] == "true"
    assert dict(second.headers)["location"] == dict(first.headers)["location"]
    assert await credits_of(alice) == 99


async def test_a_repeat_is_the_same_when_the_task_has_ended(
    send: Send, data_of: Check, gateway: Gateway, image_id: str
) -> None:
    """The first answer is repeated as it was, whatever became of the task since."""
    async with gateway.running():
        first = await segment(send, "k-1", image_id)
        data = data_of(first, 202)
        state = data_of(await send("GET", f"/api/v1/tasks/{data['task_id']}?wait=30"))
        assert state["status"] == "done"
        second = await segment(send, "k-1", image_id)

    assert data_of(second, 202) == data


async def test_the_same_request_in_other_words_is_the_same(
    send: Send, data_of: Check, image_id: str, image_url: str
) -> None:
    """Blanks around the prompt, a fresh signature or the id of the image make no other request."""
    first = data_of(await segment(send, "k-1", image_id), 202)

    response = await send(
        "POST",
        "/api/v1/segment",
        json={"text_prompt": " a cat ", "image_url": image_url},
        headers={"idempotency-key": "k-1"},
    )

    assert data_of(response, 202) == first


async def test_a_reused_key_is_refused(
    send: Send, data_of: Check, refused: Refused, image_of: MakeImage, alice: User, image_id: str
) -> None:
    """The same key with another prompt, image or project is a client's mistake."""
    data_of(await segment(send, "k-1", image_id), 202)

    for change in (
        {"text_prompt": "a dog"},
        {"image_id": str(await image_of(alice))},
        {"project_id": "00000000-0000-4000-8000-00000000b1ec"},
    ):
        await refused(
            422,
            "IDEMPOTENCY_KEY_REUSED",
            json={"image_id": image_id, "text_prompt": "a cat"} | change,
            headers={"idempotency-key": "k-1"},
        )


async def test_keys_are_per_user(
    send: Send, data_of: Check, image_of: MakeImage, bob: User, image_id: str
) -> None:
    """Two users may use the same key."""
    first = await segment(send, "k-1", image_id)
    second = await segment(send, "k-1", str(await image_of(bob)), user=bob)

    assert data_of(first, 202)["task_id"] != data_of(second, 202)["task_id"]
    assert "idempotent-replayed" not in dict(second.headers)


async def test_without_a_key_each_request_is_its_own(
    send: Send, data_of: Check, credits_of: Balance, alice: User, image_id: str
) -> None:
    """Asking twice without a key is asking for two."""
    body = {"image_id": image_id, "text_prompt": "a cat"}
    answers = [data_of(await send("POST", "/api/v1/segment", json=body), 202) for _ in range(2)]

    assert answers[0] != answers[1]
    assert await credits_of(alice) == 98


async def test_repeats_that_arrive_at_once_make_one_task(
    send: Send, data_of: Check, credits_of: Balance, alice: User, image_id: str
) -> None:
    """A client that sends twice at the same time pays once."""
    responses: list[Response] = []

    async def ask() -> None:
        responses.append(await segment(send, "k-1", image_id))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(ask)

    assert len({data_of(response, 202)["task_id"] for response in responses}) == 1
    replayed = ["idempotent-replayed" in dict(response.headers) for response in responses]
    assert sorted(replayed) == [False, True, True, True, True]
    assert await credits_of(alice) == 99


async def test_a_refusal_for_lack_of_credits_frees_the_key(
    send: Send, data_of: Check, error_of: Check, gateway: Gateway, alice: User, image_id: str
) -> None:
    """After a top-up the same key works, as a first request."""
    database = MemoryDatabase(gateway.clock, initial_credits=0)
    gateway.database = database
    error_of(await segment(send, "k-1", image_id), 402, "INSUFFICIENT_CREDITS")

    await database.grant_credits(alice.user_id, 1)
    response = await segment(send, "k-1", image_id)

    data_of(response, 202)
    assert "idempotent-replayed" not in dict(response.headers)


@pytest.mark.parametrize("key", ["k", "x" * 255, '"' + "x" * 255 + '"', "a b", '" "', "!~", '"""'])
async def test_a_key_is_printable_ascii(
    send: Send, data_of: Check, image_id: str, key: str
) -> None:
    """1 to 255 characters, bare or in one pair of quotes."""
    data_of(await segment(send, key, image_id), 202)


@pytest.mark.parametrize(
    "key",
    [
        "",
        " ",
        '""',
        '"',
        "x" * 256,
        '"' + "x" * 256 + '"',
        "a\tb",
        "\x00",
        "é",
        "a\x7f",
        " a",
        '"a',
    ],
)
async def test_another_key_is_refused(refused: Refused, image_id: str, key: str) -> None:
    """An empty, overlong or unprintable key is refused before anything is charged."""
    error = await refused(
        json={"image_id": image_id, "text_prompt": "a cat"}, headers={"idempotency-key": key}
    )

    assert error["details"][0]["field"] == "Idempotency-Key"


async def test_a_refused_request_does_not_use_up_its_key(
    send: Send, data_of: Check, error_of: Check, image_id: str
) -> None:
    """A client may correct its request and keep the key."""
    error_of(await segment(send, "k-1", image_id, prompt=""), 400, "INVALID_REQUEST")
    error_of(await segment(send, "k-1", str(uuid4())), 404, "NOT_FOUND")

    data_of(await segment(send, "k-1", image_id), 202)
