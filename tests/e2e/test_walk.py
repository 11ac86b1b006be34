"""The whole way of an image, over a real socket to a real process."""

import io
import json
from uuid import UUID, uuid4

import httpx
import pytest
from PIL import Image

from s3edge.testing.server import ServerProcess
from s3edge.web.routes import document


def upload(client: httpx.Client, image: bytes) -> dict[str, object]:
    """Upload a PNG and return the answer's data."""
    answer = client.post("/api/v1/upload", files={"file": ("scene.png", image, "image/png")})
    assert answer.status_code == 200, answer.text
    data: dict[str, object] = answer.json()["data"]
    return data


def test_an_image_is_uploaded_segmented_and_read(server: ServerProcess, scene: bytes) -> None:
    """Upload, segment, wait, result, list, account: each answer as the contract writes it."""
    user_id = uuid4()
    with server.client(user_id) as client:
        uploaded = upload(client, scene)
        assert uploaded["size_bytes"] == len(scene)
        assert (uploaded["width"], uploaded["height"]) == (96, 64)
        assert httpx.get(str(uploaded["image_url"])).content == scene

        accepted = client.post(
            "/api/v1/segment",
            json={"image_url": uploaded["image_url"], "text_prompt": " the red disc "},
        )
        assert accepted.status_code == 202, accepted.text
        task_id = accepted.json()["data"]["task_id"]
        assert accepted.json()["data"] == {"task_id": task_id, "status": "pending"}
        assert accepted.headers["Location"] == f"/api/v1/tasks/{task_id}"

        task = client.get(accepted.headers["Location"], params={"wait": 30}).json()["data"]
        assert task["status"] == "done", task
        assert task["result_id"] == task_id
        assert "error_message" not in task

        result = client.get(f"/api/v1/results/{task_id}").json()["data"]
        assert result["text_prompt"] == "the red disc"
        assert result["metadata"].keys() >= {"inference_time_ms", "confidence", "model_version"}
        assert red_overlap(httpx.get(result["mask_image_url"]).content) >= 0.9

        listed = client.get("/api/v1/results").json()["data"]
        assert [item["id"] for item in listed["results"]] == [task_id]
        assert (listed["total"], listed["page"], listed["limit"]) == (1, 1, 20)

        account = client.get("/api/v1/me").json()["data"]
        assert account["user_id"] == str(user_id)
        assert account["credits"] == 99


def red_overlap(mask_png: bytes) -> float:
    """Return the intersection over union of a mask with the scene's disc."""
    mask = Image.open(io.BytesIO(mask_png))
    assert (mask.mode, mask.size, mask.format) == ("L", (96, 64), "PNG")
    chosen = {i for i, value in enumerate(mask.tobytes()) if value == 255}
    disc = {
        y * 96 + x for y in range(64) for x in range(96) if (x - 50) ** 2 + (y - 32) ** 2 <= 400
    }
    return len(chosen & disc) / len(chosen | disc)


def test_a_users_things_are_nobody_elses(server: ServerProcess, scene: bytes) -> None:
    """Another user sees no task, no result and no image, and cannot segment by either name."""
    with server.client() as owner, server.client() as other:
        uploaded = upload(owner, scene)
        task_id = owner.post(
            "/api/v1/segment", json={"image_id": uploaded["image_id"], "text_prompt": "red"}
        ).json()["data"]["task_id"]
        for path in (f"/api/v1/tasks/{task_id}", f"/api/v1/results/{task_id}"):
            assert other.get(path).status_code == 404
        by_url = {"image_url": uploaded["image_url"], "text_prompt": "red"}
        by_id = {"image_id": uploaded["image_id"], "text_prompt": "red"}
        assert other.post("/api/v1/segment", json=by_url).status_code == 400
        assert other.post("/api/v1/segment", json=by_id).status_code == 404
        assert other.get("/api/v1/me").json()["data"]["credits"] == 100
        assert other.get("/api/v1/results").json()["data"]["results"] == []
        unsigned = str(uploaded["image_url"]).partition("?")[0]
        assert httpx.get(unsigned).status_code == 404


@pytest.mark.parametrize(
    "path", ["/health", "/health/ready", "/api/v1/me", "/nowhere", "/api/v1/tasks/not-an-id"]
)
def test_every_answer_is_in_the_envelope(server: ServerProcess, path: str) -> None:
    """Errors too, with the request id in body and header."""
    with server.client() as client:
        request_id = str(uuid4())
        answer = client.get(path, headers={"X-Request-Id": request_id})
        body = answer.json()
        assert body.keys() == {"success", "data", "error", "meta"}
        assert body["success"] is (answer.status_code < 400)
        assert body["meta"]["request_id"] == answer.headers["X-Request-Id"] == request_id
        assert (body["data"] is None) is not body["success"]
        replaced = client.get(path, headers={"X-Request-Id": "not a uuid"})
        assert UUID(replaced.headers["X-Request-Id"]).version == 4


def test_the_document_served_is_the_one_printed(server: ServerProcess) -> None:
    """``/openapi.json`` and ``s3edge openapi`` say the same."""
    served = httpx.get(server.url + "/openapi.json").json()
    assert served == json.loads(document()) == json.loads(server.run("openapi").stdout)


def test_tokens_of_strangers_are_refused(server: ServerProcess) -> None:
    """No token, garbage, another server's token: 401 with the challenge that RFC 6750 asks for."""
    answer = httpx.get(server.url + "/api/v1/me")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.json()["error"]["code"] == "AUTH_REQUIRED"
    token = server.token(uuid4())
    head, payload, signature = token.split(".")
    for forged in ("garbage", f"{head}.{payload}.", f"{head}.{payload[:-2]}xx.{signature}"):
        answer = httpx.get(server.url + "/api/v1/me", headers={"Authorization": f"Bearer {forged}"})
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
        assert answer.json()["error"]["code"] == "AUTH_INVALID"


def test_no_secret_is_logged(server: ServerProcess, scene: bytes) -> None:
    """Neither the token nor a signed URL's signature appears in the server's log."""
    with server.client() as client:
        uploaded = upload(client, scene)
        httpx.get(str(uploaded["image_url"])).raise_for_status()
        client.get("/api/v1/results", params={"cursor": "garbage"})
        token = client.headers["Authorization"].removeprefix("Bearer ")
    assert server.stop() == 0
    log = server.log.read_text()
    assert "/api/v1/upload 200" in log
    assert token not in log
    assert str(uploaded["image_url"]).rpartition("signature=")[2] not in log
