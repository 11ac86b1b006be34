"""How many connections and files a server may have open at once."""

import logging
import resource


OPEN_FILES = 65_536
"""
How many a server asks for: room for every long poll that it holds.

Not whatever the system would grant, which may be a thousand million, with tables of that size somewhere.
"""

KEPT_FILES = 1024
"""How many of them connections leave: for dependencies, and for a file to each of 500 uploads."""

_log = logging.getLogger(__name__)


def allow_open_files() -> None:
    """
    Raise this process's soft limit, so far as the hard one lets it; its children inherit it.

    The soft one is 1,024 by tradition, for the sake of ``select()``, which nothing here uses; those who
    can do without are meant to raise it. https://0pointer.net/blog/file-descriptor-limits.html
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        _log.warning("the limit of open files stays at %d: %s", soft, error)


def most_connections() -> int:
    """Return how many connections this process may hold: all but the kept files, or half of few."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = OPEN_FILES if soft == resource.RLIM_INFINITY else soft
    return max(files - KEPT_FILES, files // 2)
