"""What tests do as users of a fleet."""

import time
from typing import Any

from s3edge.testing.standins.fleet import Fleet


TIMEOUT_S = 60.0


class Tasks:
    """A user of the fleet's, and what they asked for."""

    def __init__(self, fleet: Fleet, image: bytes) -> None:
        self._fleet = fleet
        self.token = fleet.token()
        upload = self._ask("POST", "upload", files={"file": ("i.png", image, "image/png")})
        self._image_id = upload["image_id"]

    def submit(self, image_url: str | None = None) -> str:
        """Ask for a segmentation, of the upload or of what is elsewhere; return the task's id."""
        image = {"image_id": self._image_id} if image_url is None else {"image_url": image_url}
        wanted = {**image, "text_prompt": "what is bright"}
        task_id: str = self._ask("POST", "segment", json=wanted)["task_id"]
        return task_id

    def row(self, task_id: str) -> tuple[str, int]:
        """Return a task's status and attempt, as the database has them."""
        [(status, attempt)] = self._fleet.query(
            "select status, attempt from public.segmentation_results where id = %s", task_id
        )
        return status, attempt

    def wait(self, task_id: str) -> dict[str, Any]:
        """Return a task's state when it has ended."""
        ends_at = time.monotonic() + TIMEOUT_S
        while time.monotonic() < ends_at:
            state = self._ask("GET", f"tasks/{task_id}?wait=10")
            if state["status"] in ("done", "error"):
                return state
        raise TimeoutError(task_id)

    def credits(self) -> int:
        """Return the balance."""
        balance: int = self._ask("GET", "me")["credits"]
        return balance

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Return what a request that succeeds is answered with."""
        with self._fleet.client(self.token) as client:
            answer = client.request(method, f"/api/v1/{path}", **options)
        assert answer.is_success, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data
