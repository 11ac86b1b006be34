"""The command line says what it did on standard output, and everything else elsewhere."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import jwt
import pytest


Run = Callable[..., subprocess.CompletedProcess[str]]

SERVE = ("serve", "--port", "0")
"""On a free port: somebody may use the default one while the tests run."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``s3edge`` in a folder of its own, with the settings that are given."""

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "s3edge", *arguments],
            env={"PATH": "/usr/bin:/bin", **settings},
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )

    return run


def test_a_token_is_all_that_is_printed(run: Run, tmp_path: Path) -> None:
    """One line, which names the user and the tier; the key behind it is its owner's alone."""
    user_id = str(uuid4())
    made = run("token", "--user", user_id, "--tier", "pro")
    assert (made.returncode, made.stderr) == (0, "")
    claims = jwt.decode(made.stdout.strip(), options={"verify_signature": False})
    assert (claims["sub"], claims["role"], claims["aud"]) == (
        user_id,
        "authenticated",
        "authenticated",
    )
    assert claims["app_metadata"] == {"tier": "pro"}
    assert (tmp_path / ".s3edge" / "token-key.pem").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".s3edge").stat().st_mode & 0o777 == 0o700


def test_a_key_that_others_can_read_is_refused(run: Run, tmp_path: Path) -> None:
    """The message says how to mend it."""
    run("token", "--user", str(uuid4()))
    (tmp_path / ".s3edge" / "token-key.pem").chmod(0o644)
    refused = run("token", "--user", str(uuid4()))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "chmod 600" in refused.stderr


def test_credits_are_granted_and_add_up(run: Run) -> None:
    """The balance is printed, and reconcile agrees."""
    user_id = str(uuid4())
    assert run("credits", "grant", user_id, "25").stdout == "125\n"
    assert run("credits", "grant", user_id, "5").stdout == "130\n"
    assert run("reconcile").stdout == "accounts: 1, nothing wrong\n"


def test_reconcile_finds_what_is_wrong(run: Run, tmp_path: Path) -> None:
    """A balance that somebody changed by hand is reported with its user, and the status is 1."""
    user_id = str(uuid4())
    run("credits", "grant", user_id, "25")
    connection = sqlite3.connect(tmp_path / ".s3edge" / "s3edge.db")
    with connection:
        connection.execute("update users_profile set credits = 999")
    connection.close()
    found = run("reconcile")
    assert found.returncode == 1
    assert found.stdout.startswith(f"{user_id}: the balance is 999")


def test_doctor_checks_every_dependency(run: Run) -> None:
    """Each has a line; a broken one has its fix, and the status is 1."""
    healthy = run("doctor")
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    assert [line.split(": ")[0].split()[1] for line in healthy.stdout.splitlines()] == [
        *("auth", "auth", "database", "storage", "backend", "backend", "limits")
    ]
    broken = run(
        "doctor",
        S3EDGE_DATABASE="sqlite:////proc/none/s3edge.db",
        S3EDGE_STORAGE="ftp://files",
        S3EDGE_TIER_CLAIM="user_metadata.tier",
    )
    assert broken.returncode == 1
    failures = [line for line in broken.stdout.splitlines() if line.startswith("FAIL")]
    assert [line.split(": ")[0].split()[1] for line in failures] == [
        *("auth", "database", "storage")
    ]
    assert "note  backend: not checked: the storage could not be built\n" in broken.stdout
    assert "no adapter for 'ftp'" in failures[2]
    assert "Traceback" not in broken.stdout + broken.stderr


def test_doctor_looks_at_a_token(run: Run) -> None:
    """With a token at hand it says whose that is, or why it is not accepted."""
    user_id = str(uuid4())
    token = run("token", "--user", user_id).stdout.strip()
    assert f"S3EDGE_TOKEN is user {user_id}'s" in run("doctor", S3EDGE_TOKEN=token).stdout
    refused = run("doctor", S3EDGE_TOKEN=token[:-8])
    assert refused.returncode == 1
    assert token[:-8] not in refused.stdout + refused.stderr


@pytest.mark.parametrize(
    ("arguments", "settings", "says"),
    [
        (SERVE, {"S3EDGE_DATABASE": "mysql://x"}, "no adapter for 'mysql'; installed: memory"),
        (SERVE, {"S3EDGE_COST": "2"}, "S3EDGE_COST: there is no such setting"),
        (("serve", "--port", "http"), {}, "'http' is not a valid integer"),
        (("token", "--user", "me"), {}, "'me' is not a valid UUID"),
        (("credits", "grant", str(uuid4()), "0"), {}, "0 is not in the range"),
        (("serve", "--env-file", "none"), {}, "none is not a file"),
        (("demo", "no-such.jpg"), {}, "there is no file no-such.jpg"),
        (("nonsense",), {}, "No such command"),
    ],
)
def test_wrong_usage_ends_with_status_2(
    run: Run, arguments: tuple[str, ...], settings: dict[str, str], says: str
) -> None:
    """The message names what is wrong; there is no trace."""
    refused = run(*arguments, **settings)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert says in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_failed_operation_ends_with_status_1(run: Run, tmp_path: Path) -> None:
    """No server, no token, no image: one line on standard error says what to do."""
    (tmp_path / "x.png").write_bytes(b"not an image")
    without = run("segment", "x.png", "red")
    assert (without.returncode, without.stdout) == (1, "")
    assert "S3EDGE_TOKEN" in without.stderr
    broken = run("segment", "x.png", "red", "--token", "t", "--url", "http://127.0.0.1:1")
    assert (broken.returncode, broken.stdout) == (1, "")
    assert "not a PNG, JPEG or WebP" in broken.stderr


def test_the_environment_wins_over_the_file(run: Run, tmp_path: Path) -> None:
    """``.env`` is read, an option beats the environment, the environment beats the file."""
    (tmp_path / ".env").write_text("S3EDGE_DATA_DIR=from-file\nS3EDGE_INITIAL_CREDITS=7\n")
    assert run("credits", "grant", str(uuid4()), "1").stdout == "8\n"
    assert (tmp_path / "from-file" / "s3edge.db").exists()
    run("token", "--user", str(uuid4()), S3EDGE_DATA_DIR="from-environment")
    assert (tmp_path / "from-environment" / "token-key.pem").exists()
    run("token", "--user", str(uuid4()), "--data-dir", "from-option", S3EDGE_DATA_DIR="other")
    assert (tmp_path / "from-option" / "token-key.pem").exists()
    assert not (tmp_path / "other").exists()
