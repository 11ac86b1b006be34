"""What the documents show of the SDK, and the commands that are built on it, work as they stand."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image

from s3edge.testing.server import ServerProcess


ROOT = Path(__file__).parents[2]
SHOWN = "with Client() as client:"


@pytest.fixture
def folder(tmp_path: Path, scene: bytes) -> Path:
    """Return a folder with the images that the documents speak of."""
    folder = tmp_path / "shown"
    folder.mkdir()
    for name in ("cat.jpg", "my.jpg"):
        Image.open(io.BytesIO(scene)).save(folder / name)
    return folder


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/use-the-sdk.md"])
def test_the_programs_that_are_shown_run(server: ServerProcess, folder: Path, page: str) -> None:
    """With nothing set but what the page says, one after the other; the first leaves a mask."""
    text = (ROOT / page).read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    programs = [block for block in blocks if SHOWN in block]
    # Each is its own program; in one process, which starts once, they share no names.
    runs = f"for program in {programs!r}: exec(program, {{}})"
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", runs],
        env={
            "PATH": os.environ["PATH"],
            "S3EDGE_BASE_URL": server.url,
            "S3EDGE_TOKEN": server.token(uuid4()),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    with Image.open(folder / "mask.png") as mask:
        assert mask.size == (96, 64)
    if page.endswith("use-the-sdk.md"):
        assert len(programs) == 5
        # Its list shows what the programs above it made, and its last one counts all of them.
        assert "2 of 2\n" in ran.stdout
        assert ran.stdout.endswith("\n3\n")


def test_the_command_line_segments_by_the_sdk(server: ServerProcess, scene: bytes) -> None:
    """Mask and overlay are saved and their paths printed; what is refused is one line."""
    (server.folder / "scene.png").write_bytes(scene)
    access = ("--url", server.url, "--token", server.token(uuid4()))
    ran = server.run("segment", "scene.png", "the red disc", *access)
    assert ran.returncode == 0, ran.stderr
    paths = [Path(line) for line in ran.stdout.splitlines()]
    assert [path.name for path in paths] == ["scene.mask.png", "scene.overlay.png"]
    with Image.open(paths[0]) as mask, Image.open(paths[1]) as overlay:
        assert mask.getbbox() is not None
        assert overlay.size == mask.size == (96, 64)
    refused = server.run("segment", "scene.png", " ", *access)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert "INVALID_REQUEST" in refused.stderr
