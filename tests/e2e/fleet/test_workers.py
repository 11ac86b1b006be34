"""Workers that die, stand still, stop, or lose the database: their tasks go on."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from s3edge.testing.server import ServerProcess, WorkerProcess
from s3edge.testing.standins.fleet import Fleet, FleetPlan
from tests.e2e.fleet.conftest import StartFleet
from tests.e2e.fleet.tasks import Tasks
from tests.waiting import eventually


@contextmanager
def paused(process: ServerProcess) -> Iterator[None]:
    """Have a process stand still."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def in_flight(fleet: Fleet) -> int:
    """Return how many predictions the GPU works on."""
    count: int = fleet.gpu.report()["in_flight"]
    return count


def test_a_worker_that_stood_still_changes_nothing(start_fleet: StartFleet, scene: bytes) -> None:
    """Another one did its task meanwhile; what it has to say when it goes on is only logged."""
    fleet = start_fleet(
        FleetPlan(workers=2, settings={"S3EDGE_DISPATCH_CONCURRENCY": "1", "S3EDGE_LOG": "info"})
    )
    tasks = Tasks(fleet, scene)
    fleet.gpu.control(silent=True)
    task_id = tasks.submit()
    eventually(lambda: in_flight(fleet) == 1)
    lost = busy_worker(fleet)
    other = next(worker for worker in fleet.workers if worker is not lost)
    with paused(lost):
        eventually(lambda: tasks.row(task_id)[1] == 3)
        fleet.gpu.control(silent=False)
        assert tasks.wait(task_id)["status"] == "done"
    eventually(lambda: f"attempt 2 of task {task_id} changes nothing" in lost.log.read_text())
    assert tasks.row(task_id) == ("done", 3)
    assert tasks.credits() == 99
    # Both go on working.
    for worker in (lost, other):
        assert worker.is_running()
    assert tasks.wait(tasks.submit())["status"] == "done"
    assert [worker.stop() for worker in fleet.workers] == [0, 0]


def busy_worker(fleet: Fleet) -> WorkerProcess:
    """Return the one worker that has the GPU's attention."""
    busy = [worker for worker in fleet.workers if has_connection_to(worker, fleet.gpu.port)]
    assert len(busy) == 1
    return busy[0]


def has_connection_to(process: ServerProcess, port: int) -> bool:
    """Return whether a process has a connection to a port of this machine."""
    return any(
        connection.status == psutil.CONN_ESTABLISHED and connection.raddr.port == port
        for connection in psutil.Process(process.pid).net_connections("tcp")
    )


def test_a_stopped_worker_gives_its_tasks_back(start_fleet: StartFleet, scene: bytes) -> None:
    """What does not end within the grace is begun by the next worker at once, and status is 0."""
    fleet = start_fleet(FleetPlan(workers=1, settings={"S3EDGE_GRACE_S": "2"}))
    tasks = Tasks(fleet, scene)
    fleet.gpu.control(silent=True)
    running, waiting = tasks.submit(), tasks.submit()
    eventually(lambda: in_flight(fleet) == 2)
    began_at = time.monotonic()
    assert fleet.workers[0].stop() == 0
    assert time.monotonic() - began_at >= 2
    assert "what runs has 2 s to end" in fleet.workers[0].log.read_text()
    assert fleet.query("select count(*) from procrastinate.procrastinate_workers") == [(0,)]
    assert {
        status
        for (status,) in fleet.query(
            "select status::text from procrastinate.procrastinate_jobs where queue_name = 's3edge'"
        )
    } == {"todo"}
    fleet.gpu.control(silent=False)
    fleet.workers[0].start()
    for task_id in (running, waiting):
        assert tasks.wait(task_id)["status"] == "done"
        assert tasks.row(task_id) == ("done", 3)


def test_a_worker_outlives_its_database(start_fleet: StartFleet, scene: bytes) -> None:
    """After a restart of Postgres it goes on, also with what it could not write down."""
    fleet = start_fleet(FleetPlan(workers=1))
    tasks = Tasks(fleet, scene)
    fleet.gpu.control(silent=True)
    task_ids = [tasks.submit() for _ in range(5)]
    eventually(lambda: in_flight(fleet) == 5)
    fleet.postgres.stop()
    fleet.gpu.control(silent=False)
    eventually(lambda: in_flight(fleet) == 0)
    fleet.postgres.start()
    assert {tasks.wait(task_id)["status"] for task_id in task_ids} == {"done"}
    assert tasks.wait(tasks.submit())["status"] == "done"
    assert fleet.workers[0].is_running()
    assert tasks.credits() == 94
    eventually(
        lambda: (
            fleet.query(
                "select count(*) from procrastinate.procrastinate_jobs where queue_name = 's3edge'"
            )
            == [(0,)]
        )
    )


def test_what_gateways_left_is_queued(start_fleet: StartFleet, scene: bytes) -> None:
    """When a deployment begins to use the queue, open tasks of before are not forgotten."""
    fleet = start_fleet(FleetPlan())
    tasks = Tasks(fleet, scene)
    fleet.gpu.control(silent=True)
    task_id = tasks.submit()
    eventually(lambda: in_flight(fleet) == 1)
    fleet.gateways[0].kill()
    fleet.gpu.control(silent=False)
    worker = fleet.add_worker()
    eventually(lambda: tasks.row(task_id)[0] == "done")
    assert worker.stop() == 0


def test_there_is_no_work_without_a_queue(tmp_path: Path) -> None:
    """Who starts a worker where gateways run the tasks is told so."""
    told = ServerProcess(tmp_path, {}).run("worker")
    assert told.returncode == 2
    assert told.stderr.startswith(
        "s3edge: S3EDGE_DISPATCH=inline: the servers run tasks by themselves"
    )
    assert told.stderr.count("\n") == 1


@pytest.mark.parametrize("database", ["sqlite:///x.db", "memory:"])
@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["worker"]])
def test_a_queue_needs_postgres(tmp_path: Path, command: list[str], database: str) -> None:
    """Another database cannot keep the jobs; the start says what to set."""
    settings = {"S3EDGE_DATABASE": database, "S3EDGE_DISPATCH": "procrastinate"}
    told = ServerProcess(tmp_path, settings).run(*command)
    assert told.returncode == 2
    complaint = "s3edge: S3EDGE_DISPATCH: a queue needs S3EDGE_DATABASE=postgresql://..."
    assert told.stderr.splitlines()[-1] == complaint
