"""What the doctor finds out about a bucket."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from aiohttp import web

from s3edge.ports import Finding
from s3edge_s3.storage import S3ObjectStorage


pytestmark = pytest.mark.anyio

Store = Any  # RecordingStore in conftest.py
Sent = Any
S3Error = Callable[[int, str], web.Response]
OpenStorage = Callable[..., AbstractAsyncContextManager[S3ObjectStorage]]

ALL = [
    "bucket: put",
    "bucket: first put wins",
    "bucket: uploads in parts",
    "bucket: get",
    "image URLs",
    "bucket: delete",
]


async def examined(storage: S3ObjectStorage) -> list[Finding]:
    """Return all findings."""
    return [finding async for finding in storage.examine()]


def faults(findings: list[Finding]) -> dict[str, str]:
    """Return the messages of what is not ok."""
    assert [finding for finding in findings if "\n" in finding.message] == []
    return {finding.name: finding.message for finding in findings if not finding.ok}


async def test_all_is_well(store: Store, storage: S3ObjectStorage) -> None:
    """Everything is looked at, with an object of its own that is gone afterwards."""
    findings = await examined(storage)
    assert [finding.name for finding in findings] == ALL
    assert faults(findings) == {}
    assert {sent.key.partition("/")[0] for sent in store.sent} == {"doctor"}
    assert len({sent.key for sent in store.sent}) == 1
    assert store.is_empty


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, "Unauthorized", "R2_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "R2_SECRET_ACCESS_KEY"),
        (403, "AccessDenied", "Object Read & Write"),
        (404, "NoSuchBucket", "R2_BUCKET"),
        (503, "ServiceUnavailable", "wait"),
    ],
)
async def test_a_bucket_that_cannot_be_written_is_the_last_finding(
    store: Store,
    storage: S3ObjectStorage,
    answer_with: S3Error,
    status: int,
    code: str,
    said: str,
) -> None:
    """Its message is what to do."""

    async def refuse(sent: Sent) -> web.Response:
        return answer_with(status, code)

    store.before = refuse
    [finding] = await examined(storage)
    assert (finding.name, finding.ok) == ("bucket: put", False)
    assert code in finding.message
    assert said in finding.message


async def test_an_endpoint_that_does_not_answer(
    find_free_port: Callable[[], int], open_storage: OpenStorage
) -> None:
    """The setting is named, not its value."""
    port = find_free_port()
    async with open_storage(f"http://127.0.0.1:{port}") as storage:
        [finding] = await examined(storage)
    assert "R2_ENDPOINT" in finding.message
    assert str(port) not in finding.message


@pytest.mark.parametrize(
    ("action", "name"),
    [
        ("POST begin", "bucket: uploads in parts"),
        ("DELETE upload", "bucket: uploads in parts"),
        ("DELETE", "bucket: delete"),
    ],
)
async def test_a_right_that_is_missing_is_named(
    store: Store, storage: S3ObjectStorage, answer_with: S3Error, action: str, name: str
) -> None:
    """The other findings come all the same."""

    async def refuse(sent: Sent) -> web.Response | None:
        return answer_with(403, "AccessDenied") if sent.action == action else None

    store.before = refuse
    findings = await examined(storage)
    assert [finding.name for finding in findings] == ALL
    assert list(faults(findings)) == [name]
    assert "Object Read & Write" in faults(findings)[name]


async def test_a_key_that_cannot_read(
    store: Store, storage: S3ObjectStorage, answer_with: S3Error
) -> None:
    """Signed URLs cannot be read then, either; the object is removed."""

    async def refuse(sent: Sent) -> web.Response | None:
        return answer_with(403, "AccessDenied") if sent.action == "GET" else None

    store.before = refuse
    assert list(faults(await examined(storage))) == ["bucket: get", "image URLs"]
    assert store.is_empty


async def test_a_store_that_overwrites(store: Store, storage: S3ObjectStorage) -> None:
    """One that does not know ``If-None-Match`` cannot keep the first object."""

    async def overwrite(sent: Sent) -> web.Response | None:
        return web.Response(headers={"ETag": '"x"'}) if len(store.sent) == 2 else None

    store.before = overwrite
    found = faults(await examined(storage))
    assert list(found) == ["bucket: first put wins"]
    assert "If-None-Match" in found["bucket: first put wins"]


@pytest.fixture
async def web_host() -> AsyncIterator[tuple[str, Callable[[web.Response | None], None]]]:
    """Return the address of a web server, and what sets its answer."""
    answers: list[web.Response | None] = [None]

    async def answer(request: web.Request) -> web.Response:
        given = answers[-1]
        if given is None:
            return web.Response(status=404, text="<html>no such page</html>")
        return web.Response(status=given.status, body=given.body)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", answers.append
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b"no such page", "404"),
        (403, b"forbidden", "403"),
        (200, b"<html>parked</html>", "other bytes"),
        (302, b"", "302"),
        (200, b"s3edge doctor", None),
    ],
)
async def test_the_public_host(
    store: Store,
    open_storage: OpenStorage,
    web_host: tuple[str, Callable[[web.Response | None], None]],
    status: int,
    body: bytes,
    said: str | None,
) -> None:
    """It must show the bucket's objects; if it does not, its setting is named."""
    address, answer = web_host
    answer(web.Response(status=status, body=body))
    async with open_storage(store.endpoint, public_base_url=address) as storage:
        found = faults(await examined(storage))
    assert store.is_empty
    if said is None:
        assert found == {}
    else:
        assert list(found) == ["image URLs"]
        assert said in found["image URLs"]
        assert "R2_PUBLIC_BASE_URL" in found["image URLs"]


async def test_a_public_host_that_does_not_answer(
    store: Store, open_storage: OpenStorage, find_free_port: Callable[[], int]
) -> None:
    """It is told apart from the endpoint."""
    address = f"http://127.0.0.1:{find_free_port()}"
    async with open_storage(store.endpoint, public_base_url=address) as storage:
        found = faults(await examined(storage))
    assert list(found) == ["image URLs"]
    assert "R2_PUBLIC_BASE_URL" in found["image URLs"]


async def test_a_host_of_another_bucket(store: Store, open_storage: OpenStorage) -> None:
    """Real S3, but not this bucket."""
    async with open_storage(store.endpoint, public_base_url=f"{store.endpoint}/x") as storage:
        found = faults(await examined(storage))
    assert list(found) == ["image URLs"]


async def test_an_examination_that_is_left_early_leaves_nothing(
    store: Store, storage: S3ObjectStorage
) -> None:
    """The object is removed also when nobody wants the other findings."""
    findings = storage.examine()
    assert (await anext(findings)).ok
    assert not store.is_empty
    await findings.aclose()  # type: ignore[attr-defined] # it is a generator
    assert store.is_empty
