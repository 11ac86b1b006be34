"""What the README tells a newcomer to type works as it stands."""

import json
import re
import subprocess
from pathlib import Path
from uuid import uuid4

from s3edge.testing.server import ServerProcess


ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- The commands from here", "<!-- End of what is run. -->"


def test_the_readmes_commands_reach_every_endpoint(
    server: ServerProcess, scene: bytes, tmp_path: Path
) -> None:
    """Each curl command is answered with success, the segmentation is done, and none is missing."""
    readme = (ROOT / "README.md").read_text("utf-8")
    section = readme[readme.index(BEGIN) : readme.index(END)]
    script = "\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))
    image = tmp_path / "scene.png"
    image.write_bytes(scene)
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={
            "PATH": "/usr/bin:/bin",
            "S3EDGE_BASE_URL": server.url,
            "S3EDGE_TOKEN": server.token(uuid4()),
            "image": str(image),
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answers = [json.loads(answer) for answer in documents(ran.stdout)]
    enveloped = [answer for answer in answers if "openapi" not in answer]
    assert len(answers) == script.count("curl -s") == 9
    assert all(answer["success"] for answer in enveloped), ran.stdout
    assert [a["data"]["status"] for a in enveloped if "result_id" in (a["data"] or {})] == ["done"]
    for path in next(answer for answer in answers if "openapi" in answer)["paths"]:
        assert path.partition("{")[0] in script


def documents(text: str) -> list[str]:
    """Split what was printed into its JSON documents."""
    decoder = json.JSONDecoder()
    found = []
    while text := text.lstrip():
        _, end = decoder.raw_decode(text)
        found.append(text[:end])
        text = text[end:]
    return found
