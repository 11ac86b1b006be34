"""The example of an adapter is a distribution: built, installed, held to its suite, and used."""

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from s3edge.client import Client
from s3edge.testing import ObjectStorageContract
from s3edge.testing.server import ServerProcess, StartServer


PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "write-an-adapter.md"

EXAMPLE = Path(__file__).parents[2] / "examples" / "storage_adapter"

PROMISES = [name for name in vars(ObjectStorageContract) if name.startswith("test_")]


def untimed(report: str) -> str:
    """Return what ``doctor`` says but for the times."""
    return re.sub(r", [\d.]+ ms$", "", report, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Build and install the example beside everything else; return the environment that finds it."""
    folder = tmp_path_factory.mktemp("installed")
    # Copied, so that nothing is built in the sources; without the network, by the build backend at hand.
    sources = shutil.copytree(
        EXAMPLE, folder / "sources", ignore=shutil.ignore_patterns("__pycache__", ".*")
    )
    target = folder / "packages"
    options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", target)
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options, sources],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert [path.name for path in target.glob("*.py")] == ["s3edge_blobs.py"]
    path = os.pathsep.join(filter(None, [str(target), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path}


def test_the_example_keeps_every_promise(installed: Mapping[str, str], tmp_path: Path) -> None:
    """What is installed passes the suite of its port, all of it, and its tests in a deployment."""
    for name in ("conftest.py", "pyproject.toml", "test_blobs.py", "test_deployed.py"):
        shutil.copy(EXAMPLE / name, tmp_path)
    deployed = (tmp_path / "test_deployed.py").read_text("utf-8").count("\ndef test_")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        env=os.environ | installed,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    passed = f"{len(PROMISES) + deployed} passed"
    assert passed in ran.stdout
    assert passed in PAGE.read_text("utf-8")


def test_an_image_goes_the_whole_way_through_it(
    start_server: StartServer, installed: Mapping[str, str], scene: bytes, tmp_path: Path
) -> None:
    """The setting's scheme picks it; image and mask are in its file, and in no folder of files."""
    path = tmp_path / "media.db"
    server = start_server(S3EDGE_STORAGE=f"blobs://{path}", **installed)
    user_id = uuid4()
    with Client(base_url=server.url, token=server.token(user_id)) as client:
        image = client.upload(scene)
        result = client.segment(image, "red").wait(timeout=60)
        mask = result.mask.read()
    with closing(sqlite3.connect(path)) as db:
        rows = dict(db.execute("select content, key from objects").fetchall())
    assert set(rows) == {scene, mask}
    assert all(
        key.startswith(("uploads/", "masks/")) and str(user_id) in key for key in rows.values()
    )
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IRUSR | stat.S_IWUSR
    assert not (server.data_dir / "media").exists()
    assert untimed(server.run("doctor").stdout) in untimed(PAGE.read_text("utf-8"))


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("blobs:", "name a file, as in blobs:///srv/media.db"),
        ("blobs:///nowhere/media.db", "No such file or directory: '/nowhere/media.db'"),
        ("blobs://{folder}/notes.txt", "notes.txt cannot be opened: file is not a database"),
    ],
)
def test_a_setting_that_it_cannot_use_stops_the_start(
    installed: Mapping[str, str], tmp_path: Path, value: str, advice: str
) -> None:
    """It is told in one line, which names the setting."""
    (tmp_path / "notes.txt").write_text("These are notes, and they are no database at all." * 9)
    settings = {"S3EDGE_STORAGE": value.format(folder=tmp_path), **installed}
    ran = ServerProcess(tmp_path, settings).run("serve", "--port", "0")
    assert ran.returncode != 0
    assert ran.stderr.count("\n") == 1
    assert ran.stderr.startswith("s3edge: S3EDGE_STORAGE: ")
    assert ran.stderr.rstrip().endswith(advice)
