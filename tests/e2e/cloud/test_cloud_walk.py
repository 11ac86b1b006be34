"""The deployment that the product exists for: Supabase, R2 and a GPU server, each a process."""

import asyncio
import io
from collections.abc import Mapping
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from PIL import Image

from s3edge.client import (
    AuthInvalid,
    Client,
    Forbidden,
    InsufficientCredits,
    InvalidRequest,
    NotFound,
    S3EdgeError,
)
from s3edge.testing.server import ServerProcess, StartServer
from s3edge.testing.standins.cloud import Cloud
from tests.e2e.colours import AnyResult, AnyTask, Colour, done, listed
from tests.e2e.colours import client_of as sdk_of


def client_of(server: ServerProcess, token: str) -> Client:
    """Return a client with this token."""
    return Client(base_url=server.url, token=token)


def walk(cloud: Cloud, server: ServerProcess, user_id: UUID, token: str, image: bytes) -> None:
    """Take the whole way, by the SDK that waits."""
    asyncio.run(walk_by("sync", cloud, server, user_id, token, image))


async def walk_by(
    colour: Colour, cloud: Cloud, server: ServerProcess, user_id: UUID, token: str, image: bytes
) -> None:
    """Upload, segment, wait, result, list, account; the bytes end up in the bucket."""
    async with sdk_of(colour, server.url, token) as client:
        before = (await done(client.me())).credits
        uploaded = await done(client.upload(image))
        assert cloud.bucket.read(f"uploads/{user_id}/{uploaded.image_id}") == image
        assert httpx.get(uploaded.image_url).content == image

        task: AnyTask = await done(client.segment(uploaded.image_url, "the red disc"))
        result: AnyResult = await done(task.wait(timeout=30))
        assert result.status == "done"
        mask = cloud.bucket.read(f"masks/{user_id}/{task.id}")
        assert Image.open(io.BytesIO(mask)).size == (96, 64)
        assert await done(result.mask.read()) == mask
        assert httpx.get(result.source_image_url).content == image
        assert result.metadata.keys() >= {"inference_time_ms", "confidence"}

        [latest] = await listed(client.results(limit_total=1))
        assert latest.id == task.id
        account = await done(client.me())
        assert (account.user_id, account.credits) == (user_id, before - 1)


@pytest.mark.anyio
@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_an_image_goes_all_the_way(
    cloud: Cloud, edge: ServerProcess, colour: Colour, scene: bytes, algorithm: str
) -> None:
    """With signing keys of either kind."""
    user_id = cloud.supabase.sign_up()
    tokens = [cloud.token(user_id, key=key) for key in ("in_use", "standby")]
    [token] = [token for token in tokens if jwt.get_unverified_header(token)["alg"] == algorithm]
    await walk_by(colour, cloud, edge, user_id, token, scene)


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


def test_a_long_image_is_uploaded_in_parts(cloud: Cloud, edge: ServerProcess) -> None:
    """More than 5 MiB arrive whole, and nothing unfinished is left."""
    image = Image.effect_noise((2600, 2600), 100)
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    content = encoded.getvalue()
    assert 5 * 1024 * 1024 < len(content) < 10 * 1024 * 1024
    user_id = cloud.supabase.sign_up()
    with client_of(edge, cloud.token(user_id)) as client:
        uploaded = client.upload(content)
    assert cloud.bucket.read(f"uploads/{user_id}/{uploaded.image_id}") == content
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
    with client_of(edge, token) as client:
        assert client.me().tier == tier


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
    with client_of(edge, token) as client, pytest.raises(S3EdgeError) as refused:
        client.me()
    assert (refused.value.status, refused.value.code) == (status, code)


def test_an_api_key_is_no_token(cloud: Cloud, edge: ServerProcess) -> None:
    """Neither of the project's keys signs anybody in."""
    for key in (cloud.supabase.anon_key, cloud.supabase.service_key):
        with client_of(edge, key) as client, pytest.raises((AuthInvalid, Forbidden)):
            client.me()


def test_a_users_things_are_nobody_elses(cloud: Cloud, edge: ServerProcess, scene: bytes) -> None:
    """Row-level security and keys agree: another user sees nothing and cannot use it."""
    owner_id, other_id = cloud.supabase.sign_up(), cloud.supabase.sign_up()
    with (
        client_of(edge, cloud.token(owner_id)) as owner,
        client_of(edge, cloud.token(other_id)) as other,
    ):
        image = owner.upload(scene)
        task = owner.segment(image, "red")
        with pytest.raises(NotFound):
            other.task(task.id).refresh()
        with pytest.raises(NotFound):
            other.result(task.id)
        for named in (image.image_url, image.image_id):
            with pytest.raises((InvalidRequest, NotFound)):
                other.segment(named, "red")
        assert list(other.results()) == []
        assert other.me().credits == 100


def test_anonymous_users_start_without_credits(
    cloud: Cloud, edge: ServerProcess, scene: bytes
) -> None:
    """They may look around; signing in anonymously over and over earns nothing."""
    user_id = cloud.supabase.sign_up(is_anonymous=True)
    token = cloud.token(user_id, claims={"is_anonymous": True})
    with client_of(edge, token) as client:
        assert client.me().credits == 0
        image = client.upload(scene)
        with pytest.raises(InsufficientCredits):
            client.segment(image, "red")


def test_pages_walk_every_result_once(cloud: Cloud, edge: ServerProcess, scene: bytes) -> None:
    """By page and by cursor, with the total that PostgREST counted."""
    with client_of(edge, cloud.token(cloud.supabase.sign_up())) as client:
        image = client.upload(scene)
        tasks = [client.segment(image, f"red {number}").id for number in range(7)]
        pages = list(client.results(page_size=3).pages())
        assert [len(page.results) for page in pages] == [3, 3, 1]
        assert {page.total for page in pages} == {7}
        assert [result.id for page in pages for result in page.results] == tasks[::-1]
        # The SDK walks by cursor alone.
        third = client.request("GET", "/api/v1/results", query={"limit": 3, "page": 3}).parsed
        assert [item["id"] for item in third["results"]] == [str(tasks[0])]
        beyond = client.request("GET", "/api/v1/results", query={"limit": 3, "page": 50}).parsed
        assert (beyond["results"], beyond["total"]) == ([], 7)


def test_a_row_made_past_the_gateway_opens_nothing(
    cloud: Cloud, edge: ServerProcess, scene: bytes
) -> None:
    """Users can call the database by themselves; what they write there is never signed or fetched."""
    owner_id, other_id = cloud.supabase.sign_up(), cloud.supabase.sign_up()
    with client_of(edge, cloud.token(owner_id)) as owner:
        image_url = owner.upload(scene).image_url.partition("?")[0]
    token = cloud.token(other_id)
    task_id = str(uuid4())
    reserved = httpx.post(
        f"{cloud.supabase.url}/rest/v1/rpc/s3edge_reserve_task",
        json={"p_task_id": task_id, "p_image_url": image_url, "p_text_prompt": "red"},
        headers={"apikey": cloud.supabase.anon_key, "Authorization": f"Bearer {token}"},
    )
    assert reserved.status_code == 200, reserved.text
    with client_of(edge, token) as other:
        [item] = other.results()
        shown = other.result(task_id).source_image_url
        assert (shown, item.source_image_url) == (image_url, image_url)
    assert cloud.gpu.report()["predict_calls"].get(task_id, 0) == 0
