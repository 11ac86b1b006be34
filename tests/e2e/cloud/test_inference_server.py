"""The product on two machines: ``s3edge serve`` here, ``s3edge inference serve`` where the GPU is."""

import io
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import httpx
import pytest
from PIL import Image

from s3edge.gateway import SystemClock
from s3edge.testing.server import InferenceProcess, ServerProcess
from s3edge.testing.standins.cloud import API_SECRET_KEY, Cloud
from s3edge.testing.standins.image_host import HostileImageHost
from s3edge.values import NewTask, User
from s3edge_postgres.address import parse_address
from s3edge_postgres.database import PostgresDatabase
from s3edge_postgres.rows import Terms


IMAGE_TIMEOUT_S = 1


@pytest.fixture(scope="module")
def host(scene: bytes) -> Iterator[HostileImageHost]:
    """Run a host that means no good."""
    with HostileImageHost(scene) as host:
        yield host


@pytest.fixture(scope="module")
def inference(
    cloud_processes: Cloud, host: HostileImageHost, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[InferenceProcess]:
    """Run an inference server with the service key; the host by number is allowed, by name is not."""
    server = InferenceProcess(
        tmp_path_factory.mktemp("inference"),
        {
            **cloud_processes.settings(),
            "S3EDGE_IMAGE_HOSTS": f"localhost:{host.port}",
            "S3EDGE_PRIVATE_IMAGE_HOSTS": f"127.0.0.1:{host.port}",
            "S3EDGE_IMAGE_TIMEOUT_S": str(IMAGE_TIMEOUT_S),
            "S3EDGE_LOG": "debug",
        },
    )
    server.start()
    yield server
    assert server.stop() == 0
    log = server.log.read_text()
    assert [secret for secret in cloud_processes.secrets() if secret in log] == []
    assert "X-Amz-Signature" not in log


@pytest.fixture(scope="module")
def edge(
    cloud_processes: Cloud,
    host: HostileImageHost,
    inference: InferenceProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerProcess]:
    """Run a gateway in front of it; its operator has allowed the host."""
    server = ServerProcess(
        tmp_path_factory.mktemp("edge"),
        {
            **cloud_processes.settings(),
            "VASTAI_BACKEND_URL": inference.url,
            "S3EDGE_IMAGE_HOSTS": f"127.0.0.1:{host.port},localhost:{host.port}",
            "S3EDGE_RATE_LIMITS": "off",
            "S3EDGE_LOG": "info",
        },
    )
    server.start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def user_id(cloud: Cloud) -> UUID:
    """Return somebody new."""
    return cloud.supabase.sign_up()


@pytest.fixture
def client(cloud: Cloud, edge: ServerProcess, user_id: UUID) -> Iterator[httpx.Client]:
    """Return a client of theirs."""
    headers = {"Authorization": f"Bearer {cloud.token(user_id)}"}
    with httpx.Client(base_url=edge.url, headers=headers, timeout=60) as client:
        yield client


def ended(client: httpx.Client, image_url: str) -> dict[str, str]:
    """Segment an image, and return the task when it has ended."""
    accepted = client.post(
        "/api/v1/segment", json={"image_url": image_url, "text_prompt": "the red disc"}
    )
    assert accepted.status_code == 202, accepted.text
    task_id = accepted.json()["data"]["task_id"]
    task: dict[str, str] = client.get(f"/api/v1/tasks/{task_id}?wait=30").json()["data"]
    return task


def test_the_server_stores_the_mask_and_writes_the_row(
    cloud: Cloud,
    edge: ServerProcess,
    inference: InferenceProcess,
    client: httpx.Client,
    user_id: UUID,
    scene: bytes,
) -> None:
    """The edge's own write comes second, and does no harm: one end, one charge, one outcome."""
    uploaded = client.post("/api/v1/upload", files={"file": ("s.png", scene, "image/png")})
    task = ended(client, uploaded.json()["data"]["image_url"])
    assert task["status"] == "done"
    task_id = task["task_id"]

    mask = cloud.bucket.read(f"masks/{user_id}/{task_id}")
    assert Image.open(io.BytesIO(mask)).size == (96, 64)
    [(status, labels, metadata)] = cloud.query(
        "select status, labels, metadata from public.segmentation_results where id = %s", task_id
    )
    assert (status, labels) == ("done", ["red"])
    assert metadata["model_version"] == "cpu-superpixels-1"
    assert metadata.keys() == {"inference_time_ms", "confidence", "model_version"}
    lost = f"the answer to attempt 1 of task {task_id} changes nothing"
    cloud.wait_until(lambda: lost in edge.log.read_text())
    assert client.get("/api/v1/me").json()["data"]["credits"] == 99
    result = client.get(f"/api/v1/results/{task_id}").json()["data"]
    assert httpx.get(result["mask_image_url"]).content == mask

    answer = httpx.post(
        f"{inference.url}/api/v1/predict",
        headers={"X-API-Key": API_SECRET_KEY},
        json={
            "image_url": uploaded.json()["data"]["image_url"],
            "text_prompt": "the red disc",
            "user_id": str(user_id),
            "task_id": task_id,
        },
    )
    assert answer.json()["inference_time_ms"] == metadata["inference_time_ms"]


def test_an_image_of_an_allowed_host_is_segmented(
    client: httpx.Client, host: HostileImageHost
) -> None:
    """What the attacks below are refused for is not the host."""
    assert ended(client, host.url("image"))["status"] == "done"


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ("redirect", "The image's address leads to another one, and redirects are not followed."),
        ("huge", "The image is larger than 10 MiB."),
        ("endless", "The image is larger than 10 MiB."),
        ("slow", "The image's host is too slow."),
        ("bomb", "The image has more than 50 megapixels; scale it down."),
        ("svg", "The file is not a PNG, JPEG or WebP image."),
        ("html", "The file is not a PNG, JPEG or WebP image."),
    ],
)
def test_an_attack_by_image_url_ends_refunded(
    client: httpx.Client, host: HostileImageHost, attack: str, message: str
) -> None:
    """The user reads why, and has the credit back; the host was asked once, and for little."""
    sent_before = host.sent_bytes
    task = ended(client, host.url(attack))
    assert (task["status"], task["error_code"], task["error_message"]) == (
        "error",
        "INVALID_REQUEST",
        message,
    )
    assert client.get("/api/v1/me").json()["data"]["credits"] == 100
    assert host.asked[attack] == 1
    assert host.asked["secret"] == 0
    # 10 MiB, and what two systems' buffers may hold.
    assert host.sent_bytes - sent_before < 40 * 1024 * 1024


def test_a_name_for_a_private_address_is_refused(
    client: httpx.Client, host: HostileImageHost
) -> None:
    """Though the operator allowed the name: it leads to loopback, and nothing is sent there."""
    before = host.asked["image"]
    task = ended(client, host.url("image", "localhost"))
    assert (task["status"], task["error_message"]) == (
        "error",
        "The image's host has no public address.",
    )
    assert host.asked["image"] == before
    assert client.get("/api/v1/me").json()["data"]["credits"] == 100


@pytest.mark.parametrize(
    "image_url",
    [
        "http://images.example/cat.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://2130706433/",
        "http://[::ffff:127.0.0.1]/",
        "http://0177.0.0.1/",
        "file:///etc/passwd",
        "http://localhost@127.0.0.1/",
        "gopher://127.0.0.1/",
    ],
)
def test_a_host_that_was_not_allowed_is_refused(
    inference: InferenceProcess, image_url: str
) -> None:
    """However its address is spelt, and though the request has the key."""
    answer = httpx.post(
        f"{inference.url}/api/v1/predict",
        headers={"X-API-Key": API_SECRET_KEY},
        json={
            "image_url": image_url,
            "text_prompt": "the red disc",
            "user_id": str(uuid4()),
            "task_id": str(uuid4()),
        },
    )
    assert (answer.status_code, answer.json()) == (
        400,
        {
            "error": "INVALID_REQUEST",
            "message": "The image is on a host that is not allowed here.",
        },
    )


def test_another_users_upload_is_refused(
    inference: InferenceProcess, client: httpx.Client, scene: bytes
) -> None:
    """The server's own keys read everybody's images, so it looks whose one is."""
    uploaded = client.post("/api/v1/upload", files={"file": ("s.png", scene, "image/png")})
    answer = httpx.post(
        f"{inference.url}/api/v1/predict",
        headers={"X-API-Key": API_SECRET_KEY},
        json={
            "image_url": uploaded.json()["data"]["image_url"],
            "text_prompt": "the red disc",
            "user_id": str(uuid4()),
            "task_id": str(uuid4()),
        },
    )
    assert answer.status_code == 400
    assert answer.json()["message"] == "The image is not one of this user's uploads."


def test_without_a_gateway_the_row_ends_all_the_same(
    cloud: Cloud, host: HostileImageHost, tmp_path: Path
) -> None:
    """Over Postgres itself: done with its result, or in error and refunded, as if a gateway wrote it."""
    database_url = cloud.database.url("postgres")
    server = InferenceProcess(
        tmp_path,
        {
            **cloud.settings(),
            "S3EDGE_DATABASE": database_url,
            "S3EDGE_PRIVATE_IMAGE_HOSTS": f"127.0.0.1:{host.port}",
        },
    )
    server.start()
    user = User(cloud.supabase.sign_up())
    good, bad = (NewTask(uuid4(), host.url(name), "the red disc") for name in ("image", "html"))

    async def reserve() -> None:
        address = parse_address(database_url)
        async with PostgresDatabase(address, SystemClock(), Terms(100, 1, 900)) as database:
            for task in (good, bad):
                await database.reserve_task(user, task)

    anyio.run(reserve)
    try:
        for task in (good, bad):
            httpx.post(
                f"{server.url}/api/v1/predict",
                headers={"X-API-Key": API_SECRET_KEY},
                json={
                    "image_url": task.source_image_url,
                    "text_prompt": task.text_prompt,
                    "user_id": str(user.user_id),
                    "task_id": str(task.id),
                },
                timeout=30,
            )
        rows = cloud.query(
            "select id, status, labels, mask_image_url is not null"
            " from public.segmentation_results where user_id = %s order by status",
            user.user_id,
        )
        assert rows == [(good.id, "done", ["red"], True), (bad.id, "error", [], False)]
        [(balance,)] = cloud.query(
            "select credits from public.users_profile where id = %s", user.user_id
        )
        assert balance == 99
    finally:
        assert server.stop() == 0


def test_a_database_that_is_down_loses_no_answer(
    cloud: Cloud, inference: InferenceProcess, client: httpx.Client, user_id: UUID, scene: bytes
) -> None:
    """The gateway would record it; the server says so once, and answers."""
    uploaded = client.post("/api/v1/upload", files={"file": ("s.png", scene, "image/png")})

    def ask() -> httpx.Response:
        return httpx.post(
            f"{inference.url}/api/v1/predict",
            headers={"X-API-Key": API_SECRET_KEY},
            json={
                "image_url": uploaded.json()["data"]["image_url"],
                "text_prompt": "the red disc",
                "user_id": str(user_id),
                "task_id": str(uuid4()),
            },
            timeout=30,
        )

    with cloud.without("supabase", "refuse"):
        assert [ask().status_code for _ in range(2)] == [200, 200]
    assert ask().status_code == 200
    takes = "the database takes again what becomes of tasks"
    cloud.wait_until(lambda: takes in inference.log.read_text())
    assert inference.log.read_text().count("so only the gateway records it") == 1
