"""
The programs that tests need and no wheel brings, and what becomes of a test where one is missing.

It is skipped, for a reason that says how to install the program; where ``CI_REQUIRES_PROGRAMS`` is set,
it fails instead. Run as a module, this prints the Debian packages of the programs that are missing.
"""

import os
import shutil
import sys
from collections.abc import Iterable

import pytest
from attrs import frozen


REQUIRED = "CI_REQUIRES_PROGRAMS"
"""Set to anything in the environment, it forbids to go without a program."""

# Debian keeps servers where only root's PATH leads.
_FOLDERS_OF_ROOT = ("/usr/sbin", "/usr/local/sbin")


@frozen
class Program:
    """
    A program of the machine.

    Attributes:
        commands: The names that it may have, the preferred one first; they do the same.
        package: What Debian and Ubuntu call the package that brings it.
    """

    commands: tuple[str, ...]
    package: str

    @property
    def name(self) -> str:
        """Its preferred name."""
        return self.commands[0]

    @property
    def advice(self) -> str:
        """Say that it is missing, and how to install it."""
        return f"{self.name} is not installed; on Debian and Ubuntu: apt install {self.package}"

    def is_installed(self) -> bool:
        """Return whether it can be run."""
        return self._found() is not None

    def path(self) -> str:
        """
        Return where it is.

        Raises:
            RuntimeError: It is not installed; the message says how to.
        """
        found = self._found()
        if found is None:
            raise RuntimeError(self.advice)
        return found

    def require(self) -> None:
        """Skip the test that calls this, or fail it where programs are required, if it is missing."""
        if self.is_installed():
            return
        if os.environ.get(REQUIRED):
            pytest.fail(f"{self.advice}; or unset {REQUIRED} to skip what needs it", pytrace=False)
        pytest.skip(self.advice)

    def _found(self) -> str | None:
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_FOLDERS_OF_ROOT])
        found = (shutil.which(command, path=path) for command in self.commands)
        return next(filter(None, found), None)


CURL = Program(("curl",), "curl")

JQ = Program(("jq",), "jq")

PGBOUNCER = Program(("pgbouncer",), "pgbouncer")

REDIS_SERVER = Program(("redis-server", "valkey-server"), "redis-server")

PROGRAMS = (CURL, JQ, PGBOUNCER, REDIS_SERVER)


def missing_packages(programs: Iterable[Program] = PROGRAMS) -> list[str]:
    """Return the Debian packages of those programs that are missing."""
    return [program.package for program in programs if not program.is_installed()]


if __name__ == "__main__":
    sys.stdout.write(" ".join(missing_packages()) + "\n")
