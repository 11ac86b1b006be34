"""``examples/vastai/server``, filled in: one file for the gateway, one for the machine with the GPU."""

from pathlib import Path

import httpx

from s3edge.testing.server import ServerProcess
from s3edge.testing.standins.cloud import Cloud
from tests.e2e.vastai import EXAMPLE, ServingMachine, filled_in, workspace


def test_two_example_files_make_the_whole_product(
    cloud: Cloud, tmp_path: Path, scene: bytes
) -> None:
    """An image is segmented, and the gateway alone holds a key to the database."""
    values = {**cloud.settings(), "S3EDGE_PUBLIC_URL": "http://api.example"}
    machine_place, edge_place = tmp_path / "machine", tmp_path / "edge"
    edge_place.mkdir()
    text = filled_in(EXAMPLE / "server" / "gpu.env", values)
    machine = ServingMachine(machine_place, workspace(machine_place, text))
    machine.start()
    values["VASTAI_BACKEND_URL"] = machine.url
    (edge_place / "edge.env").write_text(filled_in(EXAMPLE / "server" / "edge.env", values))
    edge = ServerProcess(edge_place, {})
    edge.arguments = ("--env-file", "edge.env")
    edge.start()
    try:
        headers = {"Authorization": f"Bearer {cloud.token(cloud.supabase.sign_up())}"}
        with httpx.Client(base_url=f"{edge.url}/api/v1", headers=headers, timeout=60) as client:
            image = client.post("/upload", files={"file": ("i.png", scene, "image/png")}).json()
            wanted = {"image_id": image["data"]["image_id"], "text_prompt": "the red disc"}
            task_id = client.post("/segment", json=wanted).json()["data"]["task_id"]
            assert client.get(f"/tasks/{task_id}?wait=30").json()["data"]["status"] == "done"
        told = edge.run("doctor", *edge.arguments)
        assert "FAIL" not in told.stdout
        assert machine.url.startswith("http://127.0.0.1:")
    finally:
        assert edge.stop() == 0
        assert machine.stop() == 0
    assert "leaves outcomes to the gateway" in machine.log.read_text()
