"""What a GPU server that fails, or says nothing, costs: time, and one refund."""

from uuid import UUID

import pytest

from s3edge.client import Client, InsufficientCredits, Task, TaskFailed
from s3edge.testing.server import ServerProcess, StartServer
from s3edge.testing.standins.cloud import Cloud


WITHIN_S = 60.0

CHARGED = [("segment", 1)]
REFUNDED = [("segment", 1), ("refund", -1)]


def segment(client: Client, image: bytes) -> Task:
    """Upload an image and have it segmented."""
    return client.segment(client.upload(image), "the red disc")


def failure_of(task: Task) -> TaskFailed:
    """Wait until a task has ended in an error, and return that."""
    with pytest.raises(TaskFailed) as failed:
        task.wait(timeout=WITHIN_S)
    return failed.value


def usage(cloud: Cloud, user_id: UUID) -> list[tuple[str, int]]:
    """Return a user's usage rows as the database has them."""
    rows = cloud.query(
        "select action, credits_used from usage_logs where user_id = %s order by created_at",
        user_id,
    )
    return [(str(action), int(used)) for action, used in rows]


def client_of(cloud: Cloud, server: ServerProcess, user_id: UUID) -> Client:
    """Return a client of this user's."""
    return Client(base_url=server.url, token=cloud.token(user_id))


def test_a_failing_gpu_is_tried_again_then_refunded(
    cloud: Cloud, edge: ServerProcess, scene: bytes
) -> None:
    """503 after 503: so many tries and no more, then ``error`` and one refund."""
    user_id = cloud.supabase.sign_up()
    cloud.gpu.control(fail=[503] * 100)
    with client_of(cloud, edge, user_id) as client:
        task = segment(client, scene)
        assert failure_of(task).code == "SERVICE_UNAVAILABLE"
        assert client.me().credits == 100
    assert usage(cloud, user_id) == REFUNDED
    assert cloud.gpu.report()["model_runs"].get(str(task.id), 0) == 0
    assert edge.run("reconcile").returncode == 0


def test_a_gpu_that_recovers_costs_nothing(cloud: Cloud, edge: ServerProcess, scene: bytes) -> None:
    """Two failures are ridden out, and the task is charged once."""
    user_id = cloud.supabase.sign_up()
    cloud.gpu.control(fail=[503, 502])
    with client_of(cloud, edge, user_id) as client:
        task = segment(client, scene)
        assert task.wait(timeout=WITHIN_S).status == "done"
    assert usage(cloud, user_id) == CHARGED
    assert cloud.gpu.report()["model_runs"].get(str(task.id), 0) == 1


@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_refusing_gpu_is_not_asked_again(
    cloud: Cloud, edge: ServerProcess, scene: bytes, status: int
) -> None:
    """What will not pass ends at once, with one refund."""
    user_id = cloud.supabase.sign_up()
    cloud.gpu.control(fail=[status])
    with client_of(cloud, edge, user_id) as client:
        failure_of(segment(client, scene))
    assert usage(cloud, user_id) == REFUNDED


def test_a_silent_gpu_is_overdue_and_refunded(
    cloud: Cloud, start_edge: StartServer, scene: bytes
) -> None:
    """A task past its deadline ends in ``error`` by itself, with one refund, whatever comes later."""
    edge = start_edge(S3EDGE_TASK_DEADLINE_S="3")
    user_id = cloud.supabase.sign_up()
    cloud.gpu.control(silent=True)
    with client_of(cloud, edge, user_id) as client:
        failed = failure_of(segment(client, scene))
        assert failed.code == "INFERENCE_FAILED"
        assert "in time" in failed.message
        assert client.me().credits == 100
    assert usage(cloud, user_id) == REFUNDED
    assert edge.run("reconcile").returncode == 0


def test_the_settings_decide_what_it_costs(
    cloud: Cloud, start_edge: StartServer, scene: bytes
) -> None:
    """The gateway tells the database its prices before the first charge."""
    edge = start_edge(S3EDGE_SEGMENT_COST="7", S3EDGE_INITIAL_CREDITS="20")
    with client_of(cloud, edge, cloud.supabase.sign_up()) as client:
        # Whoever signed up before the gateway came has what the database gave.
        client.me()
    with client_of(cloud, edge, cloud.supabase.sign_up()) as client:
        assert client.me().credits == 20
        segment(client, scene).wait(timeout=WITHIN_S)
        assert client.me().credits == 13
        segment(client, scene).wait(timeout=WITHIN_S)
        with pytest.raises(InsufficientCredits, match="costs 7 credits; you have 6 credits"):
            segment(client, scene)


def test_credits_are_granted_from_the_command_line(
    cloud: Cloud, unstarted_edge: ServerProcess
) -> None:
    """With the service key; somebody who never signed up gets none."""
    user_id = cloud.supabase.sign_up()
    granted = unstarted_edge.run("credits", "grant", str(user_id), "25")
    assert granted.stdout == "125\n", granted.stderr
    unknown = unstarted_edge.run("credits", "grant", "00000000-0000-4000-8000-000000000000", "25")
    assert unknown.returncode == 1
    assert "There is no such user" in unknown.stderr
    assert unstarted_edge.run("reconcile").returncode == 0
