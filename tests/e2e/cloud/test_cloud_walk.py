"""The deployment that the product exists for: Supabase, R2 and a GPU server, each a process."""

import io
from collections.abc import Mapping
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from PIL import Image

from s3edge.testing.server import ServerProcess, StartServer
from s3edge.testing.standins.cloud import Cloud


def signed_in(server: ServerProcess, token: str) -> httpx.Client:
    """Return a client with this token."""
    return httpx.Client(
        base_url=server.url, headers={"Authorization": f"Bearer {token}"}, timeout=60
    )


def walk(cloud: Cloud, server: ServerProcess, user_id: UUID, token: str, image: bytes) -> None:
    """Upload, segment, wait, result, list, account; the bytes end up in the bucket."""
    with signed_in(server, token) as client:
        before = client.get("/api/v1/me").json()["data"]["credits"]
        uploaded = client.post(
            "/api/v1/upload", files={"file": ("scene.png", image, "image/png")}
        ).json()["data"]
        key = f"uploads/{user_id}/{uploaded['image_id']}"
        assert cloud.bucket.read(key) == image
        assert httpx.get(uploaded["image_url"]).content == image

        accepted = client.post(
            "/api/v1/segment",
            json={"image_url": uploaded["image_url"], "text_prompt": "the red disc"},
        )
        assert accepted.status_code == 202, accepted.text
        task_id = accepted.json()["data"]["task_id"]
        task = client.get(f"/api/v1/tasks/{task_id}", params={"wait": 30}).json()["data"]
        assert task["status"] == "done", task

        result = client.get(f"/api/v1/results/{task_id}").json()["data"]
        mask = cloud.bucket.read(f"masks/{user_id}/{task_id}")
        assert Image.open(io.BytesIO(mask)).size == (96, 64)
        assert httpx.get(result["mask_image_url"]).content == mask
        assert httpx.get(result["source_image_url"]).content == image
        assert result["metadata"].keys() >= {"inference_time_ms", "confidence"}

        listed = client.get("/api/v1/results", params={"limit": 1}).json()["data"]
        assert [item["id"] for item in listed["results"]] == [task_id]
        account = client.get("/api/v1/me").json()["data"]
        assert (account["user_id"], account["credits"]) == (str(user_id), before - 1)


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
def test_an_image_goes_all_the_way(
    cloud: Cloud, edge: ServerProcess, scene: bytes, algorithm: str
) -> None:
    """With signing keys of either kind."""
    user_id = cloud.supabase.sign_up()
    tokens = [cloud.token(user_id, key=key) for key in ("in_use", "standby")]
    [token] = [token for token in tokens if jwt.get_unverified_header(token)["alg"] == algorithm]
    walk(cloud, edge, user_id, token, scene)


def test_an_image_goes_all_the_way_with_the_legacy_secret(
    cloud: Cloud, start_edge: StartServer, scene: bytes
) -> None:
    """In a project that signs with its shared secret, publishes no key, and has legacy API keys."""
    cloud.supabase.set_legacy(signs=True)
    try:
        server = start_edge(
            SUPABASE_JWT_SECRET=cloud.supabase.jwt_secret,
            SUPABASE_ANON_KEY=cloud.supabase.legacy_anon_key,
            SUPABASE_SERVICE_ROLE_KEY=cloud.supabase.legacy_service_key,
        )
        user_id = cloud.supabase.sign_up()
        token = cloud.token(user_id, key="legacy")
        assert jwt.get_unverified_header(token)["alg"] == "HS256"
        walk(cloud, server, user_id, token, scene)
        assert httpx.get(f"{server.url}/health/ready").json()["data"]["status"] == "ok"
    finally:
        cloud.supabase.set_legacy(signs=False)


def test_a_key_rotation_needs_no_restart(
    cloud: Cloud, start_edge: StartServer, scene: bytes
) -> None:
    """A key that appears while the server runs is looked up; tokens of the old one stay good."""
    server = start_edge()
    user_id = cloud.supabase.sign_up()
    old = cloud.token(user_id)
    walk(cloud, server, user_id, old, scene)
    cloud.supabase.rotate()
    new = cloud.token(user_id)
    walk(cloud, server, user_id, new, scene)
    walk(cloud, server, user_id, old, scene)


def test_a_long_image_is_uploaded_in_parts(cloud: Cloud, start_edge: StartServer) -> None:
    """More than 5 MiB arrive whole, and nothing unfinished is left."""
    image = Image.effect_noise((2600, 2600), 100)
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    content = encoded.getvalue()
    assert 5 * 1024 * 1024 < len(content) < 10 * 1024 * 1024
    server = start_edge()
    user_id = cloud.supabase.sign_up()
    with signed_in(server, cloud.token(user_id)) as client:
        answer = client.post("/api/v1/upload", files={"file": ("n.png", content, "image/png")})
        assert answer.status_code == 200, answer.text
        image_id = answer.json()["data"]["image_id"]
    assert cloud.bucket.read(f"uploads/{user_id}/{image_id}") == content
    assert not [key for key in cloud.bucket.keys() if "unfinished" in key]  # noqa: SIM118 - a method


@pytest.mark.parametrize(
    ("claims", "tier"),
    [
        ({}, "free"),
        ({"user_metadata": {"tier": "enterprise"}}, "free"),
        ({"app_metadata": {"tier": "pro"}, "user_metadata": {"tier": "enterprise"}}, "pro"),
        ({"app_metadata": {"tier": "emperor"}}, "free"),
    ],
)
def test_a_tier_that_users_write_changes_nothing(
    cloud: Cloud, edge: ServerProcess, claims: Mapping[str, object], tier: str
) -> None:
    """``user_metadata`` is theirs; by default it is not looked at."""
    token = cloud.token(cloud.supabase.sign_up(), claims=claims)
    with signed_in(edge, token) as client:
        account = client.get("/api/v1/me").json()["data"]
    assert account["tier"] == tier


@pytest.mark.parametrize(
    ("claims", "status", "code"),
    [
        ({"exp": 1}, 401, "AUTH_INVALID"),
        ({"iss": "https://evil.example/auth/v1"}, 401, "AUTH_INVALID"),
        ({"aud": "somebody"}, 401, "AUTH_INVALID"),
        ({"role": "anon"}, 403, "FORBIDDEN"),
        ({"role": "service_role"}, 403, "FORBIDDEN"),
        ({"sub": "me"}, 401, "AUTH_INVALID"),
    ],
)
def test_a_token_that_is_not_a_users_is_refused(
    cloud: Cloud, edge: ServerProcess, claims: Mapping[str, object], status: int, code: str
) -> None:
    """Each with its code."""
    token = cloud.token(claims=claims)
    with signed_in(edge, token) as client:
        answer = client.get("/api/v1/me")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_an_api_key_is_no_token(cloud: Cloud, edge: ServerProcess) -> None:
    """Neither of the project's keys signs anybody in."""
    for key in (cloud.supabase.anon_key, cloud.supabase.service_key):
        with signed_in(edge, key) as client:
            assert client.get("/api/v1/me").status_code in (401, 403)


def test_a_users_things_are_nobody_elses(cloud: Cloud, edge: ServerProcess, scene: bytes) -> None:
    """Row-level security and keys agree: another user sees nothing and cannot use it."""
    owner_id, other_id = cloud.supabase.sign_up(), cloud.supabase.sign_up()
    with (
        signed_in(edge, cloud.token(owner_id)) as owner,
        signed_in(edge, cloud.token(other_id)) as other,
    ):
        uploaded = owner.post(
            "/api/v1/upload", files={"file": ("scene.png", scene, "image/png")}
        ).json()["data"]
        task_id = owner.post(
            "/api/v1/segment", json={"image_id": uploaded["image_id"], "text_prompt": "red"}
        ).json()["data"]["task_id"]
        for path in (f"/api/v1/tasks/{task_id}", f"/api/v1/results/{task_id}"):
            assert other.get(path).status_code == 404
        for body in (
            {"image_url": uploaded["image_url"], "text_prompt": "red"},
            {"image_id": uploaded["image_id"], "text_prompt": "red"},
        ):
            assert other.post("/api/v1/segment", json=body).status_code in (400, 404)
        assert other.get("/api/v1/results").json()["data"]["total"] == 0
        assert other.get("/api/v1/me").json()["data"]["credits"] == 100


def test_anonymous_users_start_without_credits(
    cloud: Cloud, edge: ServerProcess, scene: bytes
) -> None:
    """They may look around; signing in anonymously over and over earns nothing."""
    user_id = cloud.supabase.sign_up(is_anonymous=True)
    with signed_in(edge, cloud.token(user_id, claims={"is_anonymous": True})) as client:
        assert client.get("/api/v1/me").json()["data"]["credits"] == 0
        uploaded = client.post(
            "/api/v1/upload", files={"file": ("scene.png", scene, "image/png")}
        ).json()["data"]
        refused = client.post(
            "/api/v1/segment", json={"image_id": uploaded["image_id"], "text_prompt": "red"}
        )
    assert refused.status_code == 402, refused.text


def test_pages_walk_every_result_once(cloud: Cloud, edge: ServerProcess, scene: bytes) -> None:
    """By page and by cursor, with the total that PostgREST counted."""
    with signed_in(edge, cloud.token(cloud.supabase.sign_up())) as client:
        image_id = client.post(
            "/api/v1/upload", files={"file": ("scene.png", scene, "image/png")}
        ).json()["data"]["image_id"]
        tasks = [
            client.post(
                "/api/v1/segment", json={"image_id": image_id, "text_prompt": f"red {number}"}
            ).json()["data"]["task_id"]
            for number in range(7)
        ]
        seen, query = [], {"limit": "3"}
        while True:
            page = client.get("/api/v1/results", params=query).json()["data"]
            assert page["total"] == 7
            seen += [item["id"] for item in page["results"]]
            if "next_cursor" not in page:
                break
            query = {"limit": "3", "cursor": page["next_cursor"]}
        assert seen == tasks[::-1]
        third = client.get("/api/v1/results", params={"limit": 3, "page": 3}).json()["data"]
        assert [item["id"] for item in third["results"]] == [tasks[0]]
        beyond = client.get("/api/v1/results", params={"limit": 3, "page": 50}).json()["data"]
        assert (beyond["results"], beyond["total"]) == ([], 7)


def test_a_row_made_past_the_gateway_opens_nothing(
    cloud: Cloud, edge: ServerProcess, scene: bytes
) -> None:
    """Users can call the database by themselves; what they write there is never signed or fetched."""
    owner_id, other_id = cloud.supabase.sign_up(), cloud.supabase.sign_up()
    with signed_in(edge, cloud.token(owner_id)) as owner:
        uploaded = owner.post(
            "/api/v1/upload", files={"file": ("scene.png", scene, "image/png")}
        ).json()["data"]
    image_url = uploaded["image_url"].partition("?")[0]
    token = cloud.token(other_id)
    task_id = str(uuid4())
    reserved = httpx.post(
        f"{cloud.supabase.url}/rest/v1/rpc/s3edge_reserve_task",
        json={"p_task_id": task_id, "p_image_url": image_url, "p_text_prompt": "red"},
        headers={"apikey": cloud.supabase.anon_key, "Authorization": f"Bearer {token}"},
    )
    assert reserved.status_code == 200, reserved.text
    with signed_in(edge, token) as other:
        shown = other.get(f"/api/v1/results/{task_id}").json()["data"]["source_image_url"]
        [item] = other.get("/api/v1/results").json()["data"]["results"]
        assert (shown, item["source_image_url"]) == (image_url, image_url)
    assert cloud.gpu.report()["predict_calls"].get(task_id, 0) == 0
