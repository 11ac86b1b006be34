"""What a GPU server that fails, or says nothing, costs: time, and one refund."""

from uuid import UUID

import httpx
import pytest

from s3edge.testing.server import ServerProcess, StartServer
from s3edge.testing.standins.cloud import Cloud


def segment(client: httpx.Client, image: bytes) -> str:
    """Upload an image and have it segmented; return the task's id."""
    image_id = client.post(
        "/api/v1/upload", files={"file": ("scene.png", image, "image/png")}
    ).json()["data"]["image_id"]
    accepted = client.post(
        "/api/v1/segment", json={"image_id": image_id, "text_prompt": "the red disc"}
    )
    assert accepted.status_code == 202, accepted.text
    task_id: str = accepted.json()["data"]["task_id"]
    return task_id


def ended(client: httpx.Client, task_id: str) -> dict[str, str]:
    """Wait until a task has ended, and return it."""
    while True:
        task: dict[str, str] = client.get(f"/api/v1/tasks/{task_id}", params={"wait": 30}).json()[
            "data"
        ]
        if task["status"] in ("done", "error"):
            return task


def usage(cloud: Cloud, user_id: UUID) -> list[tuple[str, int]]:
    """Return a user's usage rows as the database has them."""
    rows = cloud.query(
        "select action, credits_used from usage_logs where user_id = %s order by created_at",
        user_id,
    )
    return [(str(action), int(used)) for action, used in rows]


def signed_in(cloud: Cloud, server: ServerProcess, user_id: UUID) -> httpx.Client:
    """Return a client of this user's."""
    token = cloud.token(user_id)
    return httpx.Client(
        base_url=server.url, headers={"Authorization": f"Bearer {token}"}, timeout=60
    )


def test_a_failing_gpu_is_tried_again_then_refunded(
    cloud: Cloud, edge: ServerProcess, scene: bytes
) -> None:
    """503 after 503: so many tries and no more, then ``error`` and one refund."""
    user_id = cloud.supabase.sign_up()
    cloud.gpu.control(fail=[503] * 100)
    with signed_in(cloud, edge, user_id) as client:
        task_id = segment(client, scene)
        task = ended(client, task_id)
        assert (task["status"], task["error_code"]) == ("error", "SERVICE_UNAVAILABLE")
        assert client.get("/api/v1/me").json()["data"]["credits"] == 100
    assert usage(cloud, user_id) == [("segment", 1), ("refund", -1)]
    assert cloud.gpu.report()["model_runs"].get(task_id, 0) == 0
    assert edge.run("reconcile").returncode == 0


def test_a_gpu_that_recovers_costs_nothing(cloud: Cloud, edge: ServerProcess, scene: bytes) -> None:
    """Two failures are ridden out, and the task is charged once."""
    user_id = cloud.supabase.sign_up()
    cloud.gpu.control(fail=[503, 502])
    with signed_in(cloud, edge, user_id) as client:
        task_id = segment(client, scene)
        assert ended(client, task_id)["status"] == "done"
    assert usage(cloud, user_id) == [("segment", 1)]
    assert cloud.gpu.report()["model_runs"].get(task_id, 0) == 1


@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_refusing_gpu_is_not_asked_again(
    cloud: Cloud, edge: ServerProcess, scene: bytes, status: int
) -> None:
    """What will not pass ends at once, with one refund."""
    user_id = cloud.supabase.sign_up()
    cloud.gpu.control(fail=[status])
    with signed_in(cloud, edge, user_id) as client:
        task = ended(client, segment(client, scene))
        assert task["status"] == "error"
    assert usage(cloud, user_id) == [("segment", 1), ("refund", -1)]


def test_a_silent_gpu_is_overdue_and_refunded(
    cloud: Cloud, start_edge: StartServer, scene: bytes
) -> None:
    """A task past its deadline ends in ``error`` by itself, with one refund, whatever comes later."""
    edge = start_edge(S3EDGE_TASK_DEADLINE_S="3")
    user_id = cloud.supabase.sign_up()
    cloud.gpu.control(silent=True)
    with signed_in(cloud, edge, user_id) as client:
        task_id = segment(client, scene)
        task = ended(client, task_id)
        assert (task["status"], task["error_code"]) == ("error", "INFERENCE_FAILED")
        assert "in time" in task["error_message"]
        assert client.get("/api/v1/me").json()["data"]["credits"] == 100
    assert usage(cloud, user_id) == [("segment", 1), ("refund", -1)]
    assert edge.run("reconcile").returncode == 0


def test_the_settings_decide_what_it_costs(
    cloud: Cloud, start_edge: StartServer, scene: bytes
) -> None:
    """The gateway tells the database its prices before the first charge."""
    edge = start_edge(S3EDGE_SEGMENT_COST="7", S3EDGE_INITIAL_CREDITS="20")
    with signed_in(cloud, edge, cloud.supabase.sign_up()) as client:
        # Whoever signed up before the gateway came has what the database gave.
        client.get("/api/v1/me")
    with signed_in(cloud, edge, cloud.supabase.sign_up()) as client:
        assert client.get("/api/v1/me").json()["data"]["credits"] == 20
        ended(client, segment(client, scene))
        assert client.get("/api/v1/me").json()["data"]["credits"] == 13
        ended(client, segment(client, scene))
        image_id = client.post(
            "/api/v1/upload", files={"file": ("scene.png", scene, "image/png")}
        ).json()["data"]["image_id"]
        refused = client.post("/api/v1/segment", json={"image_id": image_id, "text_prompt": "red"})
        assert refused.status_code == 402
        assert "costs 7 credits; you have 6 credits" in refused.json()["error"]["message"]


def test_credits_are_granted_from_the_command_line(cloud: Cloud, edge: ServerProcess) -> None:
    """With the service key; somebody who never signed up gets none."""
    user_id = cloud.supabase.sign_up()
    granted = edge.run("credits", "grant", str(user_id), "25")
    assert granted.stdout == "125\n", granted.stderr
    unknown = edge.run("credits", "grant", "00000000-0000-4000-8000-000000000000", "25")
    assert unknown.returncode == 1
    assert "There is no such user" in unknown.stderr
    assert edge.run("reconcile").returncode == 0
