"""What is logged helps, and gives nothing away."""

import logging
import subprocess
import sys
from typing import Any
from uuid import UUID

import httpx
import pytest

from s3edge.client import S3EdgeError
from s3edge.testing.scripted_api import REQUEST_ID, ScriptedApi, ok


TASK_ID = UUID("6b6f2c1e-2222-4222-8222-222222222222")
RESULT: dict[str, Any] = {
    "id": str(TASK_ID),
    "project_id": None,
    "source_image_url": "http://media.test/i?signature=s3cret",
    "mask_image_url": "http://media.test/s3cret/m?signature=s3cret",
    "text_prompt": "s3cret",
    "labels": [],
    "metadata": {},
    "status": "done",
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:00:00Z",
}

pytestmark = pytest.mark.anyio


async def test_no_secret_is_logged(
    api: ScriptedApi, png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """With every logger of the process at its loudest: no token, no signed URL, no prompt."""
    caplog.set_level(logging.DEBUG)
    image = {
        "image_id": str(TASK_ID),
        "image_url": "http://media.test/i?signature=s3cret",
        "size_bytes": 1,
        "content_type": "image/png",
    }
    accepted = {"task_id": str(TASK_ID), "status": "pending"}
    for _ in range(2):
        api.answer(
            ok(image),
            httpx.ReadError("s3cret"),
            ok(accepted, 202),
            ok(accepted | {"status": "done"}),
            ok(RESULT),
            httpx.Response(200, content=b"png"),
        )
    client = api.client(token="s3cret")
    result = client.segment(client.upload(png), "s3cret").wait()
    result.mask.read()
    async with api.async_client(token="s3cret") as awaited:
        task = await awaited.segment(await awaited.upload(png), "s3cret")
        await (await task.wait()).mask.read()
    api.answer(httpx.ReadError("s3cret"))
    with pytest.raises(S3EdgeError) as error:
        client.with_options(max_retries=0).request("GET", "/x?signature=s3cret")
    assert "s3cret" not in caplog.text
    assert "s3cret" not in repr(error.value) + repr(client) + repr(task)
    assert "POST http://api.test/api/v1/segment failed, attempt 1: CONNECTION_FAILED" in caplog.text
    assert f"answered 202, attempt 2, request {REQUEST_ID}" in caplog.text
    assert "GET http://media.test/... answered 200" in caplog.text


async def test_others_who_use_the_http_library_still_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only the client's own requests are kept out of httpx's log."""
    caplog.set_level(logging.INFO)
    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    httpx.Client(transport=transport).get("http://theirs.test/path")
    assert "http://theirs.test/path" in caplog.text


@pytest.mark.parametrize(("value", "shows"), [("debug", True), ("", False), ("info", False)])
def test_the_environment_turns_it_on(value: str, shows: bool) -> None:
    """``S3EDGE_LOG=debug`` writes to standard error where nothing else was set up."""
    program = (
        "from s3edge.testing.scripted_api import ScriptedApi, ok\n"
        "api = ScriptedApi()\n"
        "api.answer(ok({'status': 'ok', 'timestamp': '2026-01-01T00:00:00Z'}))\n"
        "api.client().health()\n"
        "api.client()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={"S3EDGE_LOG": value},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stderr.count("GET http://api.test/health answered 200") == int(shows)
