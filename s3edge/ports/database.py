"""Keeps users' credits, tasks and usage."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable
from uuid import UUID

from s3edge.errors import Code
from s3edge.ports.checked import Checked
from s3edge.values import (
    Account,
    NewTask,
    Outcome,
    Page,
    Profile,
    Reservation,
    ResultQuery,
    Task,
    User,
)


class Database(Checked, Protocol):
    """
    Users' credits, tasks and usage.

    Money moves in two places only: ``reserve_task`` takes it, the step that ends a task in ``error``
    gives it back. Each is one transaction.

    Whoever leases a task gets its next attempt, a fencing token: 1 by the reservation, one more by each
    claim. Calls that name an attempt change nothing when a later one has begun, so that a holder that
    was thought dead can do no harm. ``None`` speaks for the task, whoever holds it.
    """

    async def profile(self, user: User) -> Profile:
        """
        Return a user's balance.

        Implementations must:
            Know a new user by the initial credits (``test_a_new_user_has_the_initial_credits``).
        """

    async def reserve_task(self, user: User, new: NewTask) -> Reservation:
        """
        Take the credit and record the task, both or neither.

        Callers guarantee:
            ``new`` passed the rules; ``new.id`` is fresh; ``request_hash`` comes with every
            ``idempotency_key``.

        Implementations must:
            Debit, insert a pending task and log the usage (``test_a_reservation_takes_the_cost``).
            Refuse what the balance does not cover, changing nothing
            (``test_an_empty_balance_is_refused``).
            Never overdraw under concurrency (``test_concurrent_reservations_never_overdraw``).
            Return the first task for a repeated key and charge nothing
            (``test_a_repeated_key_is_replayed``), also when both arrive at once
            (``test_concurrent_repeats_make_one_task``).
            Refuse a key that comes with another request (``test_a_reused_key_is_refused``).
            Keep keys of different users apart (``test_keys_are_per_user``).
            Free the key when the balance did not cover it (``test_a_refusal_frees_the_key``).
            Refuse a project that is not the user's, where projects are known
            (``test_a_foreign_project_is_refused``).
            Lease the new task to the caller for ``rules.lifecycle.LEASE_S``, as its first attempt
            (``test_a_fresh_task_is_leased``).

        Raises:
            EdgeError: ``INSUFFICIENT_CREDITS``, ``IDEMPOTENCY_KEY_REUSED``, ``INVALID_REQUEST`` (a
                project that is not the user's, where projects are known), ``SERVICE_UNAVAILABLE``.
        """

    async def task(self, user: User, task_id: UUID) -> Task | None:
        """
        Return one of the user's tasks.

        Implementations must:
            Return ``None`` for another user's as for none (``test_another_users_task_is_absent``).
        """

    async def results(self, user: User, query: ResultQuery) -> Page:
        """
        List the user's tasks, newest first.

        Callers guarantee:
            ``limit`` is 1 to 100 and ``offset`` not negative.

        Implementations must:
            Order by time, then id, both falling (``test_results_are_newest_first``).
            List only the user's own (``test_results_are_the_users_own``).
            Leave out labels and metadata, which may be large and which no list shows
            (``test_a_list_leaves_out_what_it_does_not_show``).
            Filter by project and status (``test_results_are_filtered``).
            Count for offsets (``test_offsets_count``), and walk by position without repeating or
            skipping a row (``test_positions_walk_every_row_once``).
        """

    async def start_task(self, task_id: UUID, *, attempt: int | None = None) -> bool:
        """
        Say that a task is being worked on.

        Implementations must:
            Move ``pending`` to ``processing`` and say yes; say yes again for ``processing``, no for an
            ended or unknown task (``test_a_task_starts_until_it_ended``).
            Say no to an attempt that is not the latest (``test_an_older_attempt_changes_nothing``).
        """

    async def complete_task(
        self, task_id: UUID, outcome: Outcome, *, attempt: int | None = None
    ) -> bool:
        """
        End a task well.

        Implementations must:
            Change a task that has not ended, and say so (``test_a_completed_task_has_its_result``).
            Change nothing of an ended one, and say so (``test_the_first_outcome_wins``).
            Change nothing for an attempt that is not the latest, and say so
            (``test_an_older_attempt_changes_nothing``).
        """

    async def fail_task(
        self, task_id: UUID, code: Code, message: str, *, attempt: int | None = None
    ) -> bool:
        """
        End a task in ``error`` and refund it, both or neither.

        Implementations must:
            Refund once, with a usage row of its own (``test_a_failed_task_is_refunded_once``).
            Change nothing of an ended one, and say so (``test_the_first_outcome_wins``).
            Change nothing for an attempt that is not the latest, and say so
            (``test_an_older_attempt_changes_nothing``).
        """

    async def claim_tasks(self, limit: int, lease_s: float) -> Sequence[Task]:
        """
        Lease tasks that have not ended and that nobody holds.

        Implementations must:
            Return only tasks whose lease has run out (``test_a_fresh_task_is_leased``).
            Give one task to one of several concurrent callers (``test_a_task_is_claimed_once``).
            Offer it again when that lease runs out, the oldest first
            (``test_a_lapsed_lease_is_claimed_again``).
            Count each claim as the task's next attempt (``test_an_older_attempt_changes_nothing``).
        """

    async def extend_leases(self, held: Mapping[UUID, int], lease_s: float) -> None:
        """
        Hold tasks for ``lease_s`` seconds from now; 0 lets go of them.

        Args:
            held: The tasks, each with the attempt that the caller holds.
            lease_s: From now, in seconds.

        Implementations must:
            Keep them from being claimed until then (``test_an_extended_lease_holds``), or free them
            at once (``test_a_released_task_is_claimed_at_once``).
            Leave those alone whose later attempt somebody else holds
            (``test_an_older_attempt_changes_nothing``).
        """

    async def backlog(self) -> int:
        """
        Return how many tasks have not ended, ``rules.lifecycle.COUNTED_BACKLOG`` at the most.

        Implementations must:
            Count those that wait and those that run (``test_the_backlog_is_counted``).
        """

    async def settle_overdue(self) -> Sequence[UUID]:
        """
        End tasks past their deadline in ``error``, refunded, and return their ids.

        Implementations must:
            End pending and processing tasks past it, and no others
            (``test_overdue_tasks_are_settled``).
        """

    async def grant_credits(self, user_id: UUID, amount: int) -> int:
        """
        Give a user credits and return the balance.

        Callers guarantee:
            ``amount`` is 1 to ``rules.money.MAX_GRANT``.

        Implementations must:
            Add to the balance and to what was granted (``test_a_grant_adds_up``).
        """

    def accounts(self) -> AsyncIterator[Account]:
        """
        Walk every user's money, for the operator.

        Implementations must:
            Report what the rows say, each account in one snapshot (``test_accounts_add_up``).
        """


class EndNews(Protocol):
    """Where a database tells which tasks have ended."""

    def ended(self, task_id: UUID) -> None:
        """Pass it on to whoever waits for the task."""

    def awaited(self) -> Collection[UUID]:
        """Return the tasks that somebody waits for now."""


@runtime_checkable
class AnnouncesEnds(Protocol):
    """A database that hears of ends by itself, so that nobody has to ask again and again."""

    async def announce_ends(self, news: EndNews) -> None:
        """
        Tell of awaited tasks that have ended, whoever ended them, until cancelled.

        Implementations must:
            Tell within about a second, also when the connection that brings the news breaks: what was
            missed meanwhile is made up for.
        """
