"""The publishable key and users' own tokens are enough, at a price that is said."""

from collections.abc import Iterator

import httpx
import pytest

from s3edge.testing.server import ServerProcess, StartServer
from s3edge.testing.standins.cloud import Cloud
from s3edge.testing.standins.gpu_process import GpuServerProcess


@pytest.fixture(scope="module")
def gpu(cloud_processes: Cloud) -> Iterator[GpuServerProcess]:
    """Run a GPU server that holds the service key and writes outcomes by itself."""
    supabase = cloud_processes.supabase
    with cloud_processes.gpu_server(
        supabase_url=supabase.url, service_key=supabase.service_key
    ) as server:
        yield server


@pytest.fixture
def edge(cloud: Cloud, gpu: GpuServerProcess, start_edge: StartServer) -> ServerProcess:
    """Return a server that has no service key."""
    gpu.control(silent=False)
    return start_edge(SUPABASE_SERVICE_ROLE_KEY="", VASTAI_BACKEND_URL=gpu.url)


def signed_in(cloud: Cloud, edge: ServerProcess) -> httpx.Client:
    """Return a new user's client."""
    token = cloud.token(cloud.supabase.sign_up())
    return httpx.Client(base_url=edge.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)


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


def test_an_image_goes_all_the_way(cloud: Cloud, edge: ServerProcess, scene: bytes) -> None:
    """The inference server writes the outcome; the app sees no difference."""
    with signed_in(cloud, edge) as client:
        task_id = segment(client, scene)
        task = client.get(f"/api/v1/tasks/{task_id}", params={"wait": 30}).json()["data"]
        assert task["status"] == "done", task
        result = client.get(f"/api/v1/results/{task_id}").json()["data"]
        assert httpx.get(result["mask_image_url"]).status_code == 200
        listed = client.get("/api/v1/results").json()["data"]
        assert [item["id"] for item in listed["results"]] == [task_id]
        assert client.get("/api/v1/me").json()["data"]["credits"] == 99
    assert "SUPABASE_SERVICE_ROLE_KEY is not set" in edge.log.read_text()


@pytest.mark.parametrize("look", ["task", "results", "me", "segment"])
def test_an_unanswered_task_is_refunded_when_its_user_looks(
    cloud: Cloud, gpu: GpuServerProcess, edge: ServerProcess, scene: bytes, look: str
) -> None:
    """Nobody else may end it, so each way of looking does, once its deadline has passed."""
    cloud.set_terms(initial_credits=1, task_deadline_s=1)
    gpu.control(silent=True)
    with signed_in(cloud, edge) as client:
        task_id = segment(client, scene)
        cloud.wait_until(
            lambda: (
                cloud.query(
                    "select deadline_at < now() from segmentation_results where id = %s", task_id
                )
                == [(True,)]
            )
        )
        if look == "segment":
            # The only credit is in the overdue task, and comes back for this one.
            segment(client, scene)
        elif look == "me":
            assert client.get("/api/v1/me").json()["data"]["credits"] == 1
        elif look == "results":
            [listed] = client.get("/api/v1/results").json()["data"]["results"]
            assert listed["status"] == "error"
        task = client.get(f"/api/v1/tasks/{task_id}").json()["data"]
        assert (task["status"], task["error_code"]) == ("error", "INFERENCE_FAILED")
    rows = cloud.query("select action from usage_logs where task_id = %s order by 1", task_id)
    assert rows == [("refund",), ("segment",)]


def test_what_needs_the_key_says_so(cloud: Cloud, edge: ServerProcess) -> None:
    """The operator's commands name the setting."""
    user_id = str(cloud.supabase.sign_up())
    for command in (("credits", "grant", user_id, "5"), ("reconcile",)):
        refused = edge.run(*command)
        assert refused.returncode == 1
        assert "set SUPABASE_SERVICE_ROLE_KEY" in refused.stderr
    assert "SUPABASE_SERVICE_ROLE_KEY is not set" in edge.run("doctor").stdout
