"""The whole way of an image, over a real socket to a real process: over each door, by the SDK."""

import io
import json
from uuid import UUID, uuid4

import httpx
import pytest
from PIL import Image

from s3edge.client import (
    AuthInvalid,
    AuthRequired,
    IdempotencyKeyReused,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    S3EdgeError,
)
from s3edge.testing.server import ServerProcess, StartServer
from s3edge.web.routes import document
from tests.e2e.colours import AnyResult, AnyTask, Colour, client_of, done, listed, refused


WITHIN_S = 30.0

pytestmark = pytest.mark.anyio


async def test_an_image_is_uploaded_segmented_and_read(
    shared_server: ServerProcess, colour: Colour, scene: bytes
) -> None:
    """Upload, segment, wait, result, mask, list, account: each says what was sent and what came of it."""
    user_id = uuid4()
    async with client_of(colour, shared_server.url, shared_server.token(user_id)) as client:
        image = await done(client.upload(scene))
        assert (image.size_bytes, image.content_type) == (len(scene), "image/png")
        assert (image.width, image.height) == (96, 64)
        assert httpx.get(image.image_url).content == scene

        task: AnyTask = await done(client.segment(image.image_url, " the red disc "))
        assert task.state is not None
        assert (task.state.status, task.replayed) == ("pending", False)
        result: AnyResult = await done(task.wait(timeout=WITHIN_S))
        assert task.state.status == "done"
        assert task.state.result_id == result.id == task.id
        assert (task.state.error_code, task.state.error_message) == (None, None)
        assert result.text_prompt == "the red disc"
        assert result.metadata.keys() >= {"inference_time_ms", "confidence", "model_version"}
        assert red_overlap(await done(result.mask.read())) >= 0.9
        assert httpx.get(result.source_image_url).content == scene

        [only] = await listed(client.results())
        assert only.id == task.id
        assert await done(only.mask.read()) == await done(result.mask.read())
        account = await done(client.me())
        assert (account.user_id, account.credits) == (user_id, 99)


async def test_a_repeated_request_is_charged_once(
    shared_server: ServerProcess, colour: Colour, scene: bytes
) -> None:
    """By its key it is the same task, which says so; with other words the key is refused."""
    async with client_of(colour, shared_server.url, shared_server.token(uuid4())) as client:
        image = await done(client.upload(scene))
        key = str(uuid4())
        first: AnyTask = await done(client.segment(image, "red", idempotency_key=key))
        again: AnyTask = await done(client.segment(image, "red", idempotency_key=key))
        assert (first.id, first.replayed, again.replayed) == (again.id, False, True)
        reused = await refused(
            IdempotencyKeyReused, lambda: client.segment(image, "blue", idempotency_key=key)
        )
        assert (reused.status, reused.idempotency_key) == (422, key)
        assert (await done(client.me())).credits == 99


async def test_a_users_things_are_nobody_elses(
    shared_server: ServerProcess, colour: Colour, scene: bytes
) -> None:
    """Another user sees no task, no result and no image, and cannot segment by either name."""
    url = shared_server.url
    async with (
        client_of(colour, url, shared_server.token(uuid4())) as owner,
        client_of(colour, url, shared_server.token(uuid4())) as other,
    ):
        image = await done(owner.upload(scene))
        task: AnyTask = await done(owner.segment(image, "red"))
        theirs: AnyTask = other.task(task.id)
        await refused(NotFound, theirs.refresh)
        await refused(NotFound, lambda: other.result(task.id))
        await refused(NotFound, lambda: other.segment(image.image_id, "red"))
        await refused(InvalidRequest, lambda: other.segment(image.image_url, "red"))
        assert (await done(other.me())).credits == 100
        assert await listed(other.results()) == []
    assert httpx.get(image.image_url.partition("?")[0]).status_code == 404


async def test_each_refusal_has_its_error(
    shared_server: ServerProcess, colour: Colour, scene: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By class, with the status, the id of the request, and what is wrong with which field."""
    monkeypatch.delenv("S3EDGE_TOKEN", raising=False)
    url = shared_server.url
    async with (
        client_of(colour, url, shared_server.token(uuid4())) as client,
        client_of(colour, url) as nobody,
        client_of(colour, url, "garbage") as stranger,
    ):
        image = await done(client.upload(scene))
        errors: list[S3EdgeError] = [
            await refused(AuthRequired, lambda: nobody.request("GET", "/api/v1/me")),
            await refused(AuthInvalid, stranger.me),
            await refused(NotFound, lambda: client.result(uuid4())),
            await refused(MethodNotAllowed, lambda: client.request("DELETE", "/api/v1/me")),
            await refused(InvalidRequest, lambda: client.segment(image, " ")),
            await refused(PayloadTooLarge, lambda: client.segment(image, "x" * 70_000)),
        ]
        assert [error.status for error in errors] == [401, 401, 404, 405, 400, 413]
        assert all(UUID(error.request_id) for error in errors)
        assert not any(error.retryable for error in errors)
        assert [[it.field for it in error.details] for error in errors][4] == ["text_prompt"]
        assert (await done(client.me())).credits == 100


def red_overlap(mask_png: bytes) -> float:
    """Return the intersection over union of a mask with the scene's disc."""
    mask = Image.open(io.BytesIO(mask_png))
    assert (mask.mode, mask.size, mask.format) == ("L", (96, 64), "PNG")
    chosen = {i for i, value in enumerate(mask.tobytes()) if value == 255}
    disc = {
        y * 96 + x for y in range(64) for x in range(96) if (x - 50) ** 2 + (y - 32) ** 2 <= 400
    }
    return len(chosen & disc) / len(chosen | disc)


def test_what_the_contract_writes_is_what_is_sent(
    shared_server: ServerProcess, scene: bytes
) -> None:
    """Names and forms of the answers, which the SDK keeps to itself."""
    with shared_server.client() as client:
        image = client.post("/api/v1/upload", files={"file": ("scene.png", scene, "image/png")})
        uploaded = image.json()["data"]
        assert uploaded["size_bytes"] == len(scene)
        accepted = client.post(
            "/api/v1/segment", json={"image_id": uploaded["image_id"], "text_prompt": "red"}
        )
        assert accepted.status_code == 202, accepted.text
        task_id = accepted.json()["data"]["task_id"]
        assert accepted.json()["data"] == {"task_id": task_id, "status": "pending"}
        assert accepted.headers["Location"] == f"/api/v1/tasks/{task_id}"
        task = client.get(accepted.headers["Location"], params={"wait": 30}).json()["data"]
        assert (task["status"], task["result_id"]) == ("done", task_id)
        assert "error_message" not in task
        found = client.get("/api/v1/results").json()["data"]
        assert (found["total"], found["page"], found["limit"]) == (1, 1, 20)
        assert client.get("/api/v1/me").json()["data"]["credits"] == 99


@pytest.mark.parametrize(
    "path", ["/health", "/health/ready", "/api/v1/me", "/nowhere", "/api/v1/tasks/not-an-id"]
)
def test_every_answer_is_in_the_envelope(shared_server: ServerProcess, path: str) -> None:
    """Errors too, with the request id in body and header."""
    with shared_server.client() as client:
        request_id = str(uuid4())
        answer = client.get(path, headers={"X-Request-Id": request_id})
        body = answer.json()
        assert body.keys() == {"success", "data", "error", "meta"}
        assert body["success"] is (answer.status_code < 400)
        assert body["meta"]["request_id"] == answer.headers["X-Request-Id"] == request_id
        assert (body["data"] is None) is not body["success"]
        replaced = client.get(path, headers={"X-Request-Id": "not a uuid"})
        assert UUID(replaced.headers["X-Request-Id"]).version == 4


def test_the_document_served_is_the_one_printed(shared_server: ServerProcess) -> None:
    """``/openapi.json`` and ``s3edge openapi`` say the same."""
    served = httpx.get(shared_server.url + "/openapi.json").json()
    assert served == json.loads(document()) == json.loads(shared_server.run("openapi").stdout)


def test_tokens_of_strangers_are_refused(shared_server: ServerProcess) -> None:
    """No token, garbage, another server's token: 401 with the challenge that RFC 6750 asks for."""
    url = shared_server.url + "/api/v1/me"
    answer = httpx.get(url)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.json()["error"]["code"] == "AUTH_REQUIRED"
    token = shared_server.run("token", "--user", str(uuid4())).stdout.strip()
    assert httpx.get(url, headers={"Authorization": f"Bearer {token}"}).status_code == 200
    head, payload, signature = token.split(".")
    for forged in ("garbage", f"{head}.{payload}.", f"{head}.{payload[:-2]}xx.{signature}"):
        answer = httpx.get(url, headers={"Authorization": f"Bearer {forged}"})
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
        assert answer.json()["error"]["code"] == "AUTH_INVALID"


def test_no_secret_is_logged(start_door: StartServer, scene: bytes) -> None:
    """Neither the token nor a signed URL's signature appears in the log, however much is logged."""
    server = start_door(S3EDGE_RATE_LIMITS="off", S3EDGE_LOG="debug")
    with server.client() as client:
        answer = client.post("/api/v1/upload", files={"file": ("scene.png", scene, "image/png")})
        image_url = answer.json()["data"]["image_url"]
        httpx.get(image_url).raise_for_status()
        client.get("/api/v1/results", params={"cursor": "garbage"})
        token = client.headers["Authorization"].removeprefix("Bearer ")
    assert server.stop() == 0
    log = server.log.read_text()
    assert "/api/v1/upload 200" in log
    assert token not in log
    assert image_url.rpartition("signature=")[2] not in log
