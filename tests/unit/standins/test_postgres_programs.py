"""Whoever runs the tests, and wherever their installation is, PostgreSQL's programs can be run."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from s3edge.testing.standins.postgres_programs import programs, reachable
from tests.waiting import eventually


AS_ROOT = os.geteuid() == 0


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """Return a folder with a program, in one that only its owner may enter."""
    folder = tmp_path / "private" / "programs"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o700)
    program = folder / "hello"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    return folder


def test_an_account_without_rights_can_run_them(private: Path) -> None:
    """Root has them copied to where it can; everybody else runs what is there."""
    folder = reachable(private)
    assert (folder == private) is not AS_ROOT
    account = pwd.getpwnam("nobody").pw_uid if AS_ROOT else None
    said = subprocess.run([folder / "hello"], user=account, capture_output=True, check=True)
    assert said.stdout == b"hello\n"


def test_what_can_be_reached_is_not_copied() -> None:
    """The system's own programs are open to all."""
    assert reachable(Path("/bin")) == Path("/bin")


def test_they_are_looked_for_once() -> None:
    """All servers of a process run the same ones."""
    assert programs() == programs()
    assert (programs() / "initdb").is_file()


def test_a_copy_goes_with_its_process(private: Path) -> None:
    """Killed or not, nothing is left behind."""
    code = (
        "import os, sys; from pathlib import Path;"
        "from s3edge.testing.standins.postgres_programs import reachable;"
        "print(reachable(Path(sys.argv[1])), flush=True); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, private], stdout=subprocess.PIPE, text=True, check=False
    )
    copy = Path(ended.stdout.strip())
    assert (copy == private) is not AS_ROOT
    eventually(lambda: copy.exists() is not AS_ROOT)
