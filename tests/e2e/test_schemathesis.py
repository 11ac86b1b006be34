"""The OpenAPI document and the server agree, as schemathesis sees it."""

import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from s3edge.testing.server import StartServer


CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.timeout(300)
def test_schemathesis_finds_nothing(start_door: StartServer, tmp_path: Path) -> None:
    """All checks of schemathesis, over every operation: no failure."""
    server = start_door(S3EDGE_RATE_LIMITS="off", S3EDGE_INITIAL_CREDITS="1000000")
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "schemathesis.cli",
            f"--config-file={CONFIG}",
            "run",
            f"{server.url}/openapi.json",
            f"--header=Authorization: Bearer {server.token(uuid4())}",
            "--checks=all",
            "--max-examples=25",
            "--seed=20260101",
        ],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=tmp_path,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "8 selected / 8 total" in found.stdout
