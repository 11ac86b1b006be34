"""Hands tasks to workers that are not gateways."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from anyio import Event

from s3edge.ports.checked import Checked
from s3edge.values import Task


INLINE = "inline"
"""No queue: gateways dispatch tasks by themselves. Anything else is the scheme of a ``TaskQueue``."""


class TaskQueue(Checked, Protocol):
    """
    Hands tasks to workers, and forgets none.

    The database puts a task into it in the reservation's own transaction; whoever opens the database
    with this queue's scheme as ``Wiring.dispatch`` has it do so.
    """

    async def work(
        self,
        run: Callable[[Task], Awaitable[object]],
        *,
        concurrency: int,
        grace_s: float,
        stop: Event,
    ) -> None:
        """
        Run queued tasks until told to stop, through faults of the database.

        Each task is leased as its next attempt before it is handed out. One whose ``run`` raises is
        handed out again after a while, here or elsewhere, until it has ended; so is one whose worker
        died.

        Args:
            run: Runs one task to its end; raises when the end could not be written down.
            concurrency: How many run at once.
            grace_s: How long running tasks may take once ``stop`` is set, in seconds; those that take
                longer are cancelled and given back.
            stop: Told when to stop.
        """
