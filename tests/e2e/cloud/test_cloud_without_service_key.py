"""The publishable key and users' own tokens are enough, at a price that is said."""

from collections.abc import Iterator

import pytest

from s3edge.client import Client
from s3edge.testing.server import ServerProcess
from s3edge.testing.standins.cloud import Cloud
from s3edge.testing.standins.gpu_process import GpuServerProcess
from tests.e2e.cloud.conftest import sharing
from tests.e2e.conftest import SharedServers


KEYLESS = {"SUPABASE_SERVICE_ROLE_KEY": ""}


@pytest.fixture(scope="module")
def gpu(cloud_processes: Cloud) -> Iterator[GpuServerProcess]:
    """Run a GPU server that holds the service key and writes outcomes by itself."""
    supabase = cloud_processes.supabase
    with cloud_processes.gpu_server(
        supabase_url=supabase.url, service_key=supabase.service_key
    ) as server:
        yield server


@pytest.fixture(scope="module")
def shared_edges(
    cloud_processes: Cloud, gpu: GpuServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedServers]:
    """Return a server a door that has no service key."""
    folder = tmp_path_factory.mktemp("edges")
    with sharing(cloud_processes, folder, VASTAI_BACKEND_URL=gpu.url, **KEYLESS) as servers:
        yield servers


@pytest.fixture(autouse=True)
def _gpu_that_answers(gpu: GpuServerProcess) -> None:
    """Begin each test with a GPU server that answers."""
    gpu.control(silent=False)


def new_client(cloud: Cloud, edge: ServerProcess) -> Client:
    """Return a new user's client."""
    return Client(base_url=edge.url, token=cloud.token(cloud.supabase.sign_up()))


def test_an_image_goes_all_the_way(cloud: Cloud, edge: ServerProcess, scene: bytes) -> None:
    """The inference server writes the outcome; the app sees no difference."""
    with new_client(cloud, edge) as client:
        task = client.segment(client.upload(scene), "the red disc")
        result = task.wait(timeout=30)
        assert result.mask.to_pil().size == (96, 64)
        assert [listed.id for listed in client.results()] == [task.id]
        assert client.me().credits == 99
    assert "SUPABASE_SERVICE_ROLE_KEY is not set" in edge.log.read_text()


@pytest.mark.parametrize("look", ["task", "results", "me", "segment"])
def test_an_unanswered_task_is_refunded_when_its_user_looks(
    cloud: Cloud, gpu: GpuServerProcess, edge: ServerProcess, scene: bytes, look: str
) -> None:
    """Nobody else may end it, so each way of looking does, once its deadline has passed."""
    cloud.set_terms(initial_credits=1, task_deadline_s=1)
    gpu.control(silent=True)
    with new_client(cloud, edge) as client:
        image = client.upload(scene)
        task = client.segment(image, "the red disc")
        cloud.wait_until(
            lambda: (
                cloud.query(
                    "select deadline_at < now() from segmentation_results where id = %s", task.id
                )
                == [(True,)]
            )
        )
        if look == "segment":
            # The only credit is in the overdue task, and comes back for this one.
            client.segment(image, "the red disc")
        elif look == "me":
            assert client.me().credits == 1
        elif look == "results":
            [listed] = client.results()
            assert listed.status == "error"
        state = task.refresh()
        assert (state.status, state.error_code) == ("error", "INFERENCE_FAILED")
    rows = cloud.query("select action from usage_logs where task_id = %s order by 1", task.id)
    assert rows == [("refund",), ("segment",)]


def test_what_needs_the_key_says_so(cloud: Cloud, unstarted_edge: ServerProcess) -> None:
    """The operator's commands name the setting."""
    unstarted_edge.settings = {**unstarted_edge.settings, **KEYLESS}
    user_id = str(cloud.supabase.sign_up())
    for command in (("credits", "grant", user_id, "5"), ("reconcile",)):
        refused = unstarted_edge.run(*command)
        assert refused.returncode == 1
        assert "set SUPABASE_SERVICE_ROLE_KEY" in refused.stderr
    assert "SUPABASE_SERVICE_ROLE_KEY is not set" in unstarted_edge.run("doctor").stdout
