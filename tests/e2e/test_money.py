"""Nothing is ever charged twice or lost, whatever happens to the process."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx

from s3edge.testing.server import ServerProcess, StartServer


def test_fifty_credits_buy_fifty_segmentations(start_server: StartServer, scene: bytes) -> None:
    """Of 200 concurrent requests 50 are accepted and 150 answered 402; the balance ends at 0."""
    server = start_server(S3EDGE_RATE_LIMITS="off", S3EDGE_INITIAL_CREDITS="50")
    with server.client() as client:
        image_id = client.post(
            "/api/v1/upload", files={"file": ("scene.png", scene, "image/png")}
        ).json()["data"]["image_id"]
        body = {"image_id": image_id, "text_prompt": "red"}
        with ThreadPoolExecutor(200) as pool:
            answers = list(
                pool.map(lambda _: client.post("/api/v1/segment", json=body), range(200))
            )
        statuses = [answer.status_code for answer in answers]
        assert (statuses.count(202), statuses.count(402)) == (50, 150)
        assert client.get("/api/v1/me").json()["data"]["credits"] == 0
        tasks = [a.json()["data"]["task_id"] for a in answers if a.status_code == 202]
        for task_id in tasks:
            assert wait_for_end(client, task_id) == "done"
    reconciled = server.run("reconcile")
    assert (reconciled.returncode, reconciled.stdout) == (0, "1 accounts, nothing wrong\n")


def test_one_key_buys_one_segmentation(server: ServerProcess, scene: bytes) -> None:
    """Twenty requests with one Idempotency-Key make one task and cost one credit."""
    with server.client() as client:
        image_id = client.post(
            "/api/v1/upload", files={"file": ("scene.png", scene, "image/png")}
        ).json()["data"]["image_id"]
        body = {"image_id": image_id, "text_prompt": "red"}
        headers = {"Idempotency-Key": str(uuid4())}
        with ThreadPoolExecutor(20) as pool:
            answers = list(
                pool.map(
                    lambda _: client.post("/api/v1/segment", json=body, headers=headers), range(20)
                )
            )
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["data"]["task_id"] for answer in answers}) == 1
        replayed = [answer.headers.get("Idempotent-Replayed") for answer in answers]
        assert (replayed.count(None), replayed.count("true")) == (1, 19)
        assert client.get("/api/v1/me").json()["data"]["credits"] == 99
        changed = client.post("/api/v1/segment", json=body | {"text_prompt": "x"}, headers=headers)
        assert changed.json()["error"]["code"] == "IDEMPOTENCY_KEY_REUSED"
        assert changed.status_code == 422


def test_a_killed_server_loses_nothing(start_server: StartServer, scene: bytes) -> None:
    """Killed under load and started again, every charged task ends and the books are right."""
    server = start_server(S3EDGE_RATE_LIMITS="off", S3EDGE_DISPATCH_CONCURRENCY="2")
    users = [uuid4() for _ in range(4)]
    accepted: list[tuple[int, str]] = []
    enough = threading.Event()
    clients = [server.client(user) for user in users]

    def load(index: int) -> None:
        client = clients[index]
        try:
            image_id = client.post(
                "/api/v1/upload", files={"file": ("scene.png", scene, "image/png")}
            ).json()["data"]["image_id"]
            while True:
                answer = client.post(
                    "/api/v1/segment", json={"image_id": image_id, "text_prompt": "red"}
                )
                if answer.status_code != 202:
                    return
                accepted.append((index, answer.json()["data"]["task_id"]))
                if len(accepted) >= 40:
                    enough.set()
        except httpx.TransportError:
            return  # the server is gone, as intended

    threads = [threading.Thread(target=load, args=(index,)) for index in range(len(users))]
    for thread in threads:
        thread.start()
    assert enough.wait(60)
    server.kill()
    for thread in threads:
        thread.join()
    server.start()
    for client in clients:
        client.close()
    clients = [server.client(user) for user in users]
    ends = {wait_for_end(clients[index], task_id) for index, task_id in accepted}
    assert ends <= {"done", "error"}
    for client in clients:
        # Those that were charged and whose answer was lost on the way have ended as well.
        assert wait_for_all(client)
        client.close()
    reconciled = server.run("reconcile")
    assert reconciled.returncode == 0, reconciled.stdout


def wait_for_end(client: httpx.Client, task_id: str) -> str:
    """Return the status in which a task ended, within two minutes."""
    status = "pending"
    for _ in range(6):
        status = client.get(f"/api/v1/tasks/{task_id}", params={"wait": 20}).json()["data"][
            "status"
        ]
        if status in {"done", "error"}:
            break
    return status


def wait_for_all(client: httpx.Client) -> bool:
    """Return whether every task of a user ended."""
    ends = []
    for status in ("pending", "processing"):
        found = client.get("/api/v1/results", params={"status": status, "limit": 100})
        ends += [wait_for_end(client, item["id"]) for item in found.json()["data"]["results"]]
    return set(ends) <= {"done", "error"}
