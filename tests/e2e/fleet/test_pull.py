"""A GPU box that nobody reaches: ``s3edge inference work`` takes the tasks of a gateway by itself."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from s3edge.testing.programs import REDIS_SERVER
from s3edge.testing.server import PullProcess, ServerProcess
from s3edge.testing.standins.fleet import Fleet, FleetPlan
from s3edge.testing.standins.image_host import HostileImageHost
from tests.e2e.fleet.tasks import Tasks
from tests.e2e.vastai import EXAMPLE, PullingMachine, filled_in, workspace
from tests.waiting import eventually


StartPuller = Callable[..., PullProcess]


@pytest.fixture(scope="module")
def image_host(scene: bytes) -> Iterator[HostileImageHost]:
    """Run a host whose images take as long as a test wants."""
    with HostileImageHost(scene) as host:
        yield host


@pytest.fixture(scope="module")
def fleet(
    image_host: HostileImageHost, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """Run a gateway that has a queue and no GPU server."""
    REDIS_SERVER.require()
    plan = FleetPlan(
        settings={
            "S3EDGE_DISPATCH": "procrastinate",
            "S3EDGE_BACKEND": "queue:",
            "S3EDGE_IMAGE_HOSTS": f"127.0.0.1:{image_host.port}",
            "S3EDGE_PRIVATE_IMAGE_HOSTS": f"127.0.0.1:{image_host.port}",
        }
    )
    with Fleet(tmp_path_factory.mktemp("pull"), plan) as fleet:
        yield fleet
        for worker in fleet.workers:
            if worker.is_running():
                assert worker.stop() == 0
            log = worker.log.read_text()
            # The engine has no database: what it did is written by the worker, and by nobody before it.
            assert "changes nothing" not in log
            assert fleet.database_url not in log
            assert "X-Amz-Signature" not in log


@pytest.fixture
def start_puller(fleet: Fleet) -> StartPuller:
    """Have one pull worker with these settings: the test's before, if it goes on, or a new one."""

    def start(**settings: str) -> PullProcess:
        for worker in fleet.workers:
            if worker.is_running():
                if isinstance(worker, PullProcess) and worker.settings.items() >= settings.items():
                    return worker
                assert worker.stop() == 0
        return fleet.add_puller(S3EDGE_LOG="info", **settings)

    return start


@pytest.fixture
def host(image_host: HostileImageHost) -> HostileImageHost:
    """Return the host as it is when nothing is released, and nobody was there."""
    image_host.released.clear()
    image_host.asked.clear()
    return image_host


@pytest.fixture
def tasks(fleet: Fleet, scene: bytes) -> Tasks:
    """Return what somebody new asks for."""
    return Tasks(fleet, scene)


def test_a_task_is_done_where_nobody_listens(
    fleet: Fleet, tasks: Tasks, start_puller: StartPuller
) -> None:
    """The mask is in the bucket, the row is written once, and no port is open there."""
    task_id = tasks.submit()
    assert tasks.row(task_id) == ("pending", 1)
    puller = start_puller()
    assert tasks.wait(task_id)["status"] == "done"
    assert tasks.row(task_id) == ("done", 2)
    assert tasks.credits() == 99
    with fleet.client(tasks.token) as client:
        result = client.get(f"/api/v1/results/{task_id}").json()["data"]
    mask = httpx.get(result["mask_image_url"]).content
    assert Image.open(io.BytesIO(mask)).size == (96, 64)
    assert result["metadata"]["model_version"] == "cpu-superpixels-1"
    assert listening(puller) == []


def listening(process: PullProcess) -> list[str]:
    """Return the addresses that a process, or one that it started, listens at."""
    root = psutil.Process(process.pid)
    return [
        str(connection.laddr)
        for one in [root, *root.children(recursive=True)]
        for connection in one.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]


def test_a_bad_image_ends_refunded(
    tasks: Tasks, host: HostileImageHost, start_puller: StartPuller
) -> None:
    """The same guard as the server's: the user reads why, and the host was asked once."""
    start_puller()
    attacks = {
        "svg": "The file is not a PNG, JPEG or WebP image.",
        "redirect": "The image's address leads to another one, and redirects are not followed.",
    }
    for task_id, message in [(tasks.submit(host.url(name)), attacks[name]) for name in attacks]:
        task = tasks.wait(task_id)
        assert (task["error_code"], task["error_message"]) == ("INVALID_REQUEST", message)
    assert tasks.credits() == 100
    assert host.asked == {"svg": 1, "redirect": 1}


def test_another_one_finishes_what_a_dead_one_had(
    fleet: Fleet, tasks: Tasks, host: HostileImageHost, start_puller: StartPuller
) -> None:
    """After kill -9 in the middle: the task is done once, by the second, and paid once."""
    first = start_puller()
    task_id = tasks.submit(host.url("held"))
    eventually(lambda: host.asked["held"] == 1)
    assert tasks.row(task_id) == ("processing", 2)
    first.kill()
    host.released.set()
    start_puller()
    # As if the time that a heartbeat may be missing had passed.
    fleet.execute(
        "update procrastinate.procrastinate_workers"
        " set last_heartbeat = last_heartbeat - interval '1 minute'"
        " where id in (select worker_id from procrastinate.procrastinate_jobs where status = 'doing'"
        f" and args ->> 'task_id' = '{task_id}')"
    )
    assert tasks.wait(task_id)["status"] == "done"
    assert tasks.row(task_id) == ("done", 3)
    assert tasks.credits() == 99
    assert host.asked["held"] == 2


def test_a_stop_takes_no_more_and_lets_what_runs_end(
    tasks: Tasks, host: HostileImageHost, start_puller: StartPuller
) -> None:
    """What comes after the signal waits for the next one."""
    puller = start_puller()
    running = tasks.submit(host.url("held"))
    eventually(lambda: host.asked["held"] == 1)
    puller.ask_to_stop()
    eventually(lambda: "Stopping;" in puller.log.read_text())
    later = tasks.submit()
    host.released.set()
    assert puller.wait() == 0
    assert tasks.row(running) == ("done", 2)
    assert tasks.row(later) == ("pending", 1)
    assert puller.log.read_text().endswith("Stopped; what had not ended goes to other workers.\n")
    start_puller(S3EDGE_GRACE_S="0.5")
    assert tasks.wait(later)["status"] == "done"
    assert tasks.credits() == 98


def test_a_stop_gives_back_what_takes_too_long(
    tasks: Tasks, host: HostileImageHost, start_puller: StartPuller
) -> None:
    """After the grace it ends with status 0, and the next one begins the task at once."""
    puller = start_puller(S3EDGE_GRACE_S="0.5")
    task_id = tasks.submit(host.url("held"))
    eventually(lambda: host.asked["held"] == 1)
    assert puller.stop() == 0
    assert tasks.row(task_id) == ("processing", 2)
    # Nothing broke on the way: the engine dropped the task without a word.
    assert "Traceback" not in puller.log.read_text()
    host.released.set()
    start_puller()
    assert tasks.wait(task_id)["status"] == "done"
    assert tasks.row(task_id) == ("done", 3)
    assert tasks.credits() == 99


def test_two_example_files_make_the_whole_product(
    fleet: Fleet, scene: bytes, start_puller: StartPuller, tmp_path: Path
) -> None:
    """``examples/vastai/pull`` with its blanks filled in: one file for the gateway, one for the GPU."""
    if fleet.workers and fleet.workers[-1].is_running():
        assert fleet.workers[-1].stop() == 0
    values = {
        **fleet.settings,
        "SUPABASE_URL": "http://127.0.0.1:9",
        "S3EDGE_PUBLIC_URL": "http://api.example",
    }
    texts = [filled_in(EXAMPLE / "pull" / name, values) for name in ("edge.env", "gpu.env")]
    (tmp_path / "edge.env").write_text(texts[0])
    # Nobody signs tokens here but the fleet itself.
    edge = ServerProcess(fleet.place("edge"), {"S3EDGE_AUTH": "local"})
    edge.arguments = ("--env-file", str(tmp_path / "edge.env"))
    machine = PullingMachine(tmp_path, workspace(tmp_path, texts[1]))
    edge.start()
    machine.start()
    try:
        told = edge.run("doctor", *edge.arguments)
        assert "ok    queue: workers: 1 at work" in told.stdout
        assert "ok    backend: model: run by the queue's workers" in told.stdout
        with httpx.Client(
            base_url=f"{edge.url}/api/v1", headers={"Authorization": f"Bearer {fleet.token()}"}
        ) as client:
            image = client.post("/upload", files={"file": ("i.png", scene, "image/png")}).json()
            wanted = {"image_id": image["data"]["image_id"], "text_prompt": "the red disc"}
            task_id = client.post("/segment", json=wanted).json()["data"]["task_id"]
            task = client.get(f"/tasks/{task_id}?wait=30", timeout=60).json()["data"]
            assert task["status"] == "done"
    finally:
        assert machine.stop() == 0
        assert edge.stop() == 0
