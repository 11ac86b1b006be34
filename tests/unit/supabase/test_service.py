"""Calls without a user: what is stored, and what needs the key."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from s3edge.errors import Code, EdgeError
from s3edge.values import Outcome
from s3edge_aiohttp import Answer, HttpClient
from s3edge_supabase.postgrest import Postgrest
from s3edge_supabase.project import SupabaseProject
from s3edge_supabase.service import WithoutServiceKey, WithServiceKey


pytestmark = pytest.mark.anyio

PROJECT = SupabaseProject("https://p", "sb_publishable_1", "sb_secret_1")


class Accepting(HttpClient):
    """Answers ``true`` and remembers what was sent."""

    def __init__(self) -> None:
        super().__init__("the database")
        self.sent: list[Any] = []
        self.headers: list[Mapping[str, str]] = []

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Answer."""
        self.sent.append(msgspec.json.decode(body or b"{}"))
        self.headers.append(headers or {})
        return Answer(200, {"content-type": "application/json"}, b"true")


async def test_what_postgres_cannot_keep_is_left_out() -> None:
    """A NUL anywhere in what the model said does not keep a result from being written."""
    http = Accepting()
    service = WithServiceKey(Postgrest(http, "https://p"), PROJECT)
    outcome = Outcome(
        "https://gpu.test/m",
        ["a\x00cat", {"la\x00bel": ["\x00", 1, None]}],
        {"model_version": "1\x00", "nested": {"x": "\x00y"}},
    )
    assert await service.complete_task(uuid4(), outcome, attempt=None)
    assert await service.fail_task(uuid4(), Code.INFERENCE_FAILED, "It\x00 broke.", attempt=None)
    completed, failed = http.sent
    assert completed["p_labels"] == ["acat", {"label": ["", 1, None]}]
    assert completed["p_metadata"] == {"model_version": "1", "nested": {"x": "y"}}
    assert failed["p_error_message"] == "It broke."


async def test_the_service_key_travels_alone() -> None:
    """No user's token is beside it, and the publishable key is not there either."""
    http = Accepting()
    await WithServiceKey(Postgrest(http, "https://p"), PROJECT).start_task(uuid4(), attempt=1)
    [sent] = http.headers
    assert sent["apikey"] == "sb_secret_1"
    assert "Authorization" not in sent


async def test_without_the_key_nothing_is_sent_for_nobody() -> None:
    """Outcomes are left to the inference server, and what cannot be left is refused by name."""
    http = Accepting()
    service = WithoutServiceKey(Postgrest(http, "https://p"), PROJECT)
    assert await service.start_task(uuid4(), attempt=1)
    assert not await service.complete_task(uuid4(), Outcome("https://gpu.test/m"), attempt=1)
    assert not await service.fail_task(uuid4(), Code.INFERENCE_FAILED, "It broke.", attempt=1)
    assert await service.claim_tasks(10, 15) == []
    assert await service.settle_overdue() == []
    with pytest.raises(EdgeError, match="SUPABASE_SERVICE_ROLE_KEY"):
        await service.grant_credits(uuid4(), 5)
    with pytest.raises(EdgeError, match="SUPABASE_SERVICE_ROLE_KEY"):
        service.accounts()
    assert http.sent == []
