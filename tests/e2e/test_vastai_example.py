"""``examples/vastai``: what its files name is there, and its settings are settings."""

import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

import click
import pytest

from s3edge.cli import commands
from s3edge.config import parse_settings
from tests.e2e.vastai import EXAMPLE, filled_in, settings_of


ROOT = Path(__file__).parents[2]

SCRIPTS = sorted(EXAMPLE.glob("*.sh"))

VALUES = {
    "SUPABASE_URL": "https://ref.supabase.co",
    "SUPABASE_ANON_KEY": "sb_publishable_x",
    "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_x",
    "R2_ENDPOINT": "https://account-id.r2.cloudflarestorage.com",
    "R2_ACCESS_KEY_ID": "id",
    "R2_SECRET_ACCESS_KEY": "secret",
    "R2_BUCKET": "s3-images",
    "VASTAI_BACKEND_URL": "http://127.0.0.1:8000",
    "API_SECRET_KEY": "0123456789abcdef",
    "S3EDGE_DATABASE": "postgresql://s3edge:password@db.example/s3edge?sslmode=verify-full",
    "S3EDGE_PUBLIC_URL": "https://api.example",
}


def settings_in(way: str, name: str) -> Mapping[str, str]:
    """Return what a filled-in file says."""
    return settings_of(filled_in(EXAMPLE / way / name, VALUES))


@pytest.mark.parametrize("way", ["server", "pull"])
def test_the_files_are_settings_that_go_together(way: str) -> None:
    """Both are read by the parser itself, and what both name they name alike, but for the R2 token."""
    edge, gpu = (settings_in(way, name) for name in ("edge.env", "gpu.env"))
    for settings in (edge, gpu):
        assert "<" not in "".join(settings.values())
        read = parse_settings(settings)
        assert (read.storage, read.dispatch) == (
            "r2",
            "inline" if way == "server" else "procrastinate",
        )
    assert parse_settings(gpu).predictor == "sam3"
    raw = [(EXAMPLE / way / name).read_text("utf-8") for name in ("edge.env", "gpu.env")]
    lines = [dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)) for text in raw]
    shared = lines[0].keys() & lines[1].keys()
    different = {name for name in shared if lines[0][name] != lines[1][name]}
    assert different == {"R2_ACCESS_KEY_ID"}


def test_a_rented_server_has_no_key_to_the_database() -> None:
    """Who reads its disk can use the GPU and the bucket, and nobody's credits."""
    gpu = settings_in("server", "gpu.env")
    assert not [name for name in gpu if "SUPABASE" in name or name == "S3EDGE_DATABASE"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_can_be_read(script: Path) -> None:
    """By bash itself, in strict mode, and by shellcheck where it is installed."""
    assert script.read_text("utf-8").startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in script.read_text("utf-8")
    assert script.stat().st_mode & 0o100
    checks = [["bash", "-n", str(script)]]
    if shutil.which("shellcheck"):
        checks.append(["shellcheck", str(script)])
    for check in checks:
        done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_commands_and_extras_exist() -> None:
    """Every ``s3edge`` command of the scripts and the page is one, with its options."""
    text = "".join(path.read_text("utf-8") for path in [*SCRIPTS, EXAMPLE / "README.md"])
    named = re.findall(
        r"""(?:^|`|exec "\$)s3edge"? ((?:inference )?[a-z]+)(.*)""", text, flags=re.MULTILINE
    )
    assert {command for command, _ in named} >= {
        "inference serve",
        "inference work",
        "migrate",
        "serve",
        "doctor",
        "segment",
    }
    for command, rest in named:
        options = set(re.findall(r"--[a-z-]+", rest.partition("`")[0].partition("#")[0]))
        assert options <= options_of(command), command
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    assert {"inference-server", "queue", "inference", "sam3"} <= set(extras)
    assert "${clone}[inference-server,queue,$predictor]" in text


def options_of(name: str) -> set[str]:
    """Return the options of a command."""
    command: click.Command | None = commands
    for part in name.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), part)
    assert command is not None
    return {option for parameter in command.params for option in parameter.opts}


def test_setup_says_what_is_missing(tmp_path: Path) -> None:
    """The settings first, then the driver; nothing is installed before."""
    tools, env_file = tmp_path / "bin", tmp_path / "gpu.env"
    tools.mkdir()
    for tool in ("bash", "chmod", "dirname", "env", "grep"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)

    def said() -> str:
        done = subprocess.run(
            [str(EXAMPLE / "setup.sh")],
            env={"PATH": str(tools), "WORKSPACE": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr

    assert said().endswith(f"gpu.env to {env_file}, fill it in, and run this again\n")
    env_file.write_text("API_SECRET_KEY=<a key>\n")
    assert "angle brackets" in said()
    env_file.write_text("API_SECRET_KEY=x\n")
    assert said() == "setup: there is no NVIDIA driver; rent a machine with one\n"
    assert env_file.stat().st_mode & 0o777 == 0o600
    assert sorted(tmp_path.iterdir()) == [tools, env_file]
