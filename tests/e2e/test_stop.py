"""A server that is asked to stop does so well."""

import threading
from uuid import uuid4

import httpx

from s3edge.testing.server import StartServer


def test_a_long_poll_does_not_hold_a_stop(start_server: StartServer, scene: bytes) -> None:
    """SIGTERM answers the poll at once with the task as it stands, and the exit status is 0."""
    server = start_server(S3EDGE_RATE_LIMITS="off", S3EDGE_DISPATCH_CONCURRENCY="1")
    with server.client() as client:
        image_id = client.post(
            "/api/v1/upload", files={"file": ("scene.png", scene, "image/png")}
        ).json()["data"]["image_id"]
        tasks = [
            client.post(
                "/api/v1/segment", json={"image_id": image_id, "text_prompt": f"red {number}"}
            ).json()["data"]["task_id"]
            for number in range(40)
        ]
        answers: list[httpx.Response] = []

        def poll() -> None:
            answers.append(client.get(f"/api/v1/tasks/{tasks[-1]}", params={"wait": 30}))

        waiting = threading.Thread(target=poll)
        waiting.start()
        # Answered only when the server has the poll too: requests of one connection come in order.
        client.get("/health")
        assert server.stop() == 0
        waiting.join(timeout=10)
        assert [answer.status_code for answer in answers] == [200]
    assert server.run("reconcile").returncode == 0


def test_waiting_tasks_are_let_go_on_a_stop(start_server: StartServer, scene: bytes) -> None:
    """What a stopped server had not begun is done by the next one without waiting for leases."""
    server = start_server(S3EDGE_RATE_LIMITS="off", S3EDGE_DISPATCH_CONCURRENCY="1")
    user_id = uuid4()
    with server.client(user_id) as client:
        image_id = client.post(
            "/api/v1/upload", files={"file": ("scene.png", scene, "image/png")}
        ).json()["data"]["image_id"]
        body = {"image_id": image_id, "text_prompt": "red"}
        tasks = [
            client.post("/api/v1/segment", json=body).json()["data"]["task_id"] for _ in range(20)
        ]
    assert server.stop() == 0
    server.start()
    with server.client(user_id) as client:
        for task_id in tasks:
            task = client.get(f"/api/v1/tasks/{task_id}", params={"wait": 30}).json()["data"]
            assert task["status"] == "done", task
        mask_url = client.get(f"/api/v1/results/{tasks[0]}").json()["data"]["mask_image_url"]
        # The first server had another port; its objects are still found, at the new address.
        assert mask_url.startswith(server.url)
        assert httpx.get(mask_url).status_code == 200
