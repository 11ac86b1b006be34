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
    Hands tasks to workers, and forgets none, whichever of them dies.

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

        Args:
            run: Runs one task to its end; raises when the end could not be written down.
            concurrency: How many run at once.
            grace_s: How long running tasks may take once ``stop`` is set, in seconds; those that take
                longer are cancelled and given back.
            stop: Set when it is time to stop.

        Implementations must:
            Run every task that was reserved once, leased as its next attempt
            (``test_every_reserved_task_is_run_once``), shared out among workers
            (``test_workers_share_the_tasks``).
            Run a task again whose ``run`` raised (``test_a_task_is_run_again_until_it_has_ended``), but
            none that has ended (``test_a_task_that_has_ended_is_not_run``).
            Run no more than ``concurrency`` at once (``test_no_more_than_so_many_run_at_once``).
            Begin nothing once told to stop, and wait for what runs
            (``test_a_stop_lets_running_tasks_end``), for ``grace_s`` at the most; then cancel it and
            give it to others (``test_a_stop_gives_back_what_takes_too_long``).
        """
