"""What log lines hold."""

import os
import pty
import subprocess
import sys
from contextlib import suppress


FAILING = """
import logging
from s3edge.cli.logs import configure_logs

configure_logs("info")


def call(key):
    raise RuntimeError("a fault of ours")


try:
    call("the-secret-" + "key")
except RuntimeError:
    logging.getLogger("s3edge").exception("it failed")
"""


def test_a_trace_on_a_terminal_shows_no_values() -> None:
    """Somebody who looks over the operator's shoulder, or reads what was pasted, learns no key."""
    terminal, other_end = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", FAILING], stderr=other_end) as process:
        os.close(other_end)
        shown = b""
        with suppress(OSError):  # how a terminal ends
            while piece := os.read(terminal, 65_536):
                shown += piece
    os.close(terminal)
    assert process.returncode == 0
    assert b"it failed" in shown
    assert b"RuntimeError: a fault of ours" in shown
    assert b"the-secret-key" not in shown
