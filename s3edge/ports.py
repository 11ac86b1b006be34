"""
What the core asks of the world, as Protocols.

Each method says what its callers guarantee and what implementations must do; every "must" names the
contract test in ``s3edge.testing`` that checks it. Vendor errors never cross a port: implementations
turn them into an ``EdgeError``, ``SERVICE_UNAVAILABLE`` when they are down or too slow.
"""

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable
from uuid import UUID

from anyio import Event
from attrs import field, frozen

from s3edge.errors import Code
from s3edge.values import (
    Account,
    Allowance,
    BatchPrediction,
    BatchPredictRequest,
    ModelInfo,
    NewTask,
    Outcome,
    Page,
    Prediction,
    PredictRequest,
    Profile,
    RateLimit,
    Reservation,
    ResultQuery,
    StoredObject,
    Task,
    User,
)


INLINE = "inline"
"""The gateway dispatches tasks by itself; anything else is the scheme of a ``TaskQueue``."""


class Checked(Protocol):
    """A dependency that can be asked whether it works."""

    async def check(self) -> None:
        """
        Return when the dependency answers.

        Implementations must:
            Touch the dependency and change nothing (``test_check_passes``).

        Raises:
            EdgeError: What is wrong with it.
        """


@frozen
class Finding:
    """
    What an examination of a dependency found.

    Attributes:
        name: Of what was looked at, in a few words.
        ok: Whether it is as it must be.
        message: What was seen; when it is not ok, what to do about it, on one line. Holds no secret.
    """

    name: str
    ok: bool
    message: str


@runtime_checkable
class Examinable(Protocol):
    """A dependency that the operator can have examined more closely than ``check`` does."""

    def examine(self) -> AsyncIterator[Finding]:
        """
        Look at each thing that can be wrong, leave nothing changed, and raise nothing for a fault.

        Findings come as they are made; one that makes the others pointless is the last.
        """


@runtime_checkable
class Limited(Protocol):
    """A part that works, but with less than it could have."""

    def limitations(self) -> Sequence[str]:
        """Return what is missing and what that costs, a line each; said at the start."""


class Authenticator(Checked, Protocol):
    """Tells who a bearer token belongs to."""

    async def authenticate(self, token: str) -> User:
        """
        Verify a token and return its user.

        Callers guarantee:
            ``token`` is what followed ``Bearer``, not empty.

        Implementations must:
            Return the token's user and tier (``test_a_valid_token_names_its_user``).
            Refuse what is not a token (``test_garbage_is_refused``).
            Refuse a token whose signature was changed (``test_a_tampered_token_is_refused``).
            Refuse a token after its time (``test_an_expired_token_is_refused``).

        Raises:
            EdgeError: ``AUTH_INVALID`` for a token that proves nothing, ``FORBIDDEN`` for a valid one
                without the right, ``SERVICE_UNAVAILABLE`` when it cannot be told.
        """


class ObjectStorage(Checked, Protocol):
    """Holds objects under keys, each written once and whole."""

    async def put(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str,
        size_bytes: int | None = None,
    ) -> StoredObject:
        """
        Store an object from a stream.

        Callers guarantee:
            ``key`` passes ``rules.keys.is_key``; ``size_bytes``, when given, is exact.

        Implementations must:
            Keep every byte and the type (``test_what_is_put_is_read_back``).
            Show nothing before the stream has ended well (``test_nothing_is_seen_before_the_end``).
            Leave nothing when the stream raises, and let the error out
            (``test_a_stream_that_raises_leaves_nothing``).
            Leave nothing when cancelled (``test_a_cancelled_put_leaves_nothing``).
            Keep the first object when a key is put again (``test_the_first_put_wins``).

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE``.
        """

    def url_for(self, key: str) -> str:
        """
        Return an address that a client or a GPU server can read the object from now.

        Implementations must:
            Give each key its own URL, and put a signature only in the query, so that what is before
            the ``?`` is permanent (``test_a_url_leads_back_to_its_key``).
        """

    def key_of(self, url: str) -> str | None:
        """
        Return the key that ``url_for`` made a URL of, or ``None`` for any other URL.

        Implementations must:
            Undo ``url_for`` with and without its query (``test_a_url_leads_back_to_its_key``).
            Know no other host, scheme, port or path (``test_a_foreign_url_has_no_key``).
        """

    async def head(self, key: str) -> StoredObject | None:
        """
        Return what is stored under a key, without its bytes.

        Implementations must:
            Return ``None`` for a key that holds nothing (``test_an_absent_key_has_no_head``).
        """

    def open(self, key: str) -> AsyncIterator[bytes]:
        """
        Stream an object's bytes.

        Implementations must:
            Raise ``NOT_FOUND`` for a key that holds nothing (``test_an_absent_key_cannot_be_opened``).
        """

    async def delete(self, key: str) -> None:
        """
        Remove an object.

        Implementations must:
            Remove it (``test_a_deleted_object_is_gone``).
            Accept a key that holds nothing (``test_deleting_nothing_is_no_error``).
        """


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
            ``amount`` is 1 to ``rules.limits.MAX_GRANT``.

        Implementations must:
            Add to the balance and to what was granted (``test_a_grant_adds_up``).
        """

    def accounts(self) -> AsyncIterator[Account]:
        """
        Walk every user's money, for the operator.

        Implementations must:
            Report what the rows say, each account in one snapshot (``test_accounts_add_up``).
        """


class InferenceBackend(Checked, Protocol):
    """Runs the model."""

    async def predict(self, request: PredictRequest) -> Prediction:
        """
        Segment an image by one prompt and store the mask under ``masks/<user_id>/<task_id>``.

        Callers guarantee:
            The image's URL was made or allowed by this deployment.

        Implementations must:
            Store an 8-bit PNG mask of the image's own size (``test_a_prediction_stores_its_mask``).
            Give a repeated ``task_id`` the same answer (``test_a_repeat_gives_the_same_answer``).
            Refuse an image that cannot be read, for good (``test_an_unreadable_image_is_refused``).

        Raises:
            EdgeError: ``INVALID_REQUEST`` for a bad image, ``MODEL_NOT_LOADED`` and
                ``SERVICE_UNAVAILABLE`` (both retryable), ``INFERENCE_FAILED``.
        """

    async def predict_batch(self, request: BatchPredictRequest) -> BatchPrediction:
        """
        Segment one image by several prompts.

        Implementations must:
            Answer every prompt, in order (``test_a_batch_answers_every_prompt``).
        """

    async def model_info(self) -> ModelInfo:
        """
        Say which model runs, and where.

        Implementations must:
            Name it (``test_the_model_is_named``).
        """


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


@runtime_checkable
class HasCapacity(Protocol):
    """A backend that runs no more than so many tasks at once, whatever it is given."""

    @property
    def capacity(self) -> int:
        """How many tasks run at once; the dispatcher keeps the others, where no timeout runs."""


class RateLimiter(Checked, Protocol):
    """Counts requests; which limit applies to whom is decided by ``rules.limits``."""

    async def hit(self, subject: str, limit: RateLimit) -> Allowance:
        """
        Count one request of a subject against a limit.

        Implementations must:
            Allow exactly the quota, then refuse (``test_the_quota_is_exact``).
            Count down and say when quota returns (``test_the_allowance_counts_down``).
            Keep subjects and limits apart (``test_subjects_and_limits_are_apart``).
            Allow exactly the quota to concurrent requests (``test_concurrent_hits_are_exact``).

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE`` when the store is down.
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


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Return the time, aware and in UTC."""


class Ids(Protocol):
    """Makes ids."""

    def new(self) -> UUID:
        """Return a fresh UUID v4."""


@frozen
class Wiring:
    """
    What the composition root tells the factory of an adapter.

    Attributes:
        data_dir: Where embedded parts keep their files.
        public_url: How the outside reaches this server, without a trailing slash.
        clock: Tells the time.
        ids: Makes ids.
        initial_credits: What a new user has.
        segment_cost: What a segmentation costs, in credits.
        task_deadline_s: When an unanswered task ends in ``error``, in seconds.
        tier_claim: Path of the tier in a token's claims.
        dispatch: Who dispatches tasks: ``inline``, or the scheme of a queue.
        storage: The object storage, for parts that are built after it; else ``None``.
        database: The database, likewise.
        vendor: The rest of the environment: settings under vendors' own names; holds secrets.
    """

    data_dir: Path
    public_url: str
    clock: Clock
    ids: Ids
    initial_credits: int
    segment_cost: int
    task_deadline_s: int
    tier_claim: str
    dispatch: str = INLINE
    storage: ObjectStorage | None = None
    database: Database | None = None
    vendor: Mapping[str, str] = field(factory=dict, repr=False)
