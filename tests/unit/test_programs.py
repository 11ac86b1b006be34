"""A test that needs a program which is missing is skipped with advice, or failed where that is asked."""

from pathlib import Path

import pytest

from s3edge.testing.programs import PROGRAMS, REQUIRED, Program, missing_packages


MISSING = Program(("no-such-program", "nor-this-one"), "no-such-package")

ADVICE = "no-such-program is not installed; on Debian and Ubuntu: apt install no-such-package"


def test_without_a_program_its_tests_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason says what is missing and how to install it."""
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception) as caught:
        MISSING.require()
    assert caught.value.msg == ADVICE


def test_where_programs_are_required_their_tests_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """In CI nothing is left out without anybody noticing."""
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match=ADVICE):
        MISSING.require()


def test_a_missing_program_has_no_path() -> None:
    """Who runs it without having asked reads the same advice."""
    assert not MISSING.is_installed()
    with pytest.raises(RuntimeError, match=ADVICE):
        MISSING.path()


def test_a_program_is_found_by_any_of_its_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The preferred name first."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in reversed(MISSING.commands):
        file = tmp_path / name
        file.touch(0o755)
        assert MISSING.path() == str(file)
    MISSING.require()


def test_ci_learns_what_to_install() -> None:
    """The packages of missing programs are named, and no others."""
    shell = Program(("sh",), "dash")
    assert missing_packages([shell, MISSING]) == ["no-such-package"]
    assert {"pgbouncer", "redis-server"} <= {program.package for program in PROGRAMS}
