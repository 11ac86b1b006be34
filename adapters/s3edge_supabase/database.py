"""The ``Database`` port over a Supabase project's REST endpoint."""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote
from uuid import UUID

import anyio

from s3edge.errors import Code, EdgeError, unavailable
from s3edge.ports import Clock, Finding, Wiring
from s3edge.rules.lifecycle import has_ended
from s3edge.rules.schema import SCHEMA_VERSION
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
from s3edge_aiohttp import HttpClient
from s3edge_supabase.examination import examine_database
from s3edge_supabase.postgrest import Postgrest, Refusal, Rows
from s3edge_supabase.project import SupabaseProject, project_from_environment
from s3edge_supabase.refusals import error_of_user_call, fix_of
from s3edge_supabase.rows import (
    LISTED_COLUMNS,
    TASK_COLUMNS,
    TaskRow,
    Terms,
    credits_of,
    reservation,
    shaped,
    task_rows,
)
from s3edge_supabase.service import ServiceSide, WithoutServiceKey, WithServiceKey


WITHOUT_SERVICE_KEY = (
    "SUPABASE_SERVICE_ROLE_KEY is not set: only the inference server writes outcomes; a task that"
    " fails, or that this process drops, is refunded when its deadline has passed and its user looks;"
    " prices are the database's; credits cannot be granted from here"
)

_log = logging.getLogger(__name__)


class SupabaseDatabase:
    """
    Users' calls carry the user's own token, so that row-level security decides what they touch.

    Prices are kept in the database. With the service key this writes its own there before the first
    charge; without it, those of the database hold.

    Args:
        project: Where it is, and the keys.
        clock: Tells whether a task is overdue.
        terms: The prices and times that the settings say.
    """

    def __init__(self, project: SupabaseProject, clock: Clock, terms: Terms) -> None:
        self._project = project
        self._clock = clock
        self._terms = terms
        self._agreed: Terms | None = None
        self._agreeing = anyio.Lock()
        self._failures = 0
        self._http = HttpClient("the database")
        self._postgrest = Postgrest(self._http, project.url)
        side = WithoutServiceKey if project.service_key is None else WithServiceKey
        self._service: ServiceSide = side(self._postgrest, project)

    async def __aenter__(self) -> Self:
        """Open the connections; the database itself may be down."""
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._http.__aexit__(kind, error, trace)

    async def profile(self, user: User) -> Profile:
        """Implement ``Database``."""
        terms = await self._agreement()
        if self._settles_by_user:
            await self._settle(user)
        found = await self._rows(user, f"users_profile?select=credits&id=eq.{user.user_id}")
        balance = shaped(credits_of, found.rows)
        if balance is None:
            # Made with the first task; anonymous sign-ins cost nothing, and earn nothing either.
            balance = 0 if user.is_anonymous else terms.initial_credits
        return Profile(user.user_id, balance)

    async def reserve_task(self, user: User, new: NewTask) -> Reservation:
        """Implement ``Database``."""
        await self._agreement()
        try:
            return await self._reserve(user, new)
        except EdgeError as error:
            short = error.code is Code.INSUFFICIENT_CREDITS
            if short and self._settles_by_user and await self._settle(user):
                return await self._reserve(user, new)
            raise

    async def task(self, user: User, task_id: UUID) -> Task | None:
        """Implement ``Database``."""
        query = (
            f"segmentation_results?select={TASK_COLUMNS}&id=eq.{task_id}&user_id=eq.{user.user_id}"
        )
        found = shaped(task_rows, (await self._rows(user, query)).rows)
        if self._any_to_settle(found):
            await self._settle(user)
            found = shaped(task_rows, (await self._rows(user, query)).rows)
        return found[0].task() if found else None

    async def results(self, user: User, query: ResultQuery) -> Page:
        """Implement ``Database``."""
        text = _results_query(user.user_id, query)
        counted = query.after is None
        found = await self._rows(user, text, counted=counted)
        rows = shaped(task_rows, found.rows)
        if self._any_to_settle(rows):
            await self._settle(user)
            found = await self._rows(user, text, counted=counted)
            rows = shaped(task_rows, found.rows)
        if counted and found.total is None:
            raise unavailable("The database did not count; try again in a moment.")
        return Page(
            tasks=[row.task() for row in rows[: query.limit]],
            has_more=len(rows) > query.limit,
            total=found.total,
        )

    async def start_task(self, task_id: UUID, *, attempt: int | None = None) -> bool:
        """Implement ``Database``."""
        return await self._service.start_task(task_id, attempt=attempt)

    async def complete_task(
        self, task_id: UUID, outcome: Outcome, *, attempt: int | None = None
    ) -> bool:
        """Implement ``Database``."""
        return await self._service.complete_task(task_id, outcome, attempt=attempt)

    async def fail_task(
        self, task_id: UUID, code: Code, message: str, *, attempt: int | None = None
    ) -> bool:
        """Implement ``Database``."""
        return await self._service.fail_task(task_id, code, message, attempt=attempt)

    async def claim_tasks(self, limit: int, lease_s: float) -> Sequence[Task]:
        """Implement ``Database``."""
        return await self._service.claim_tasks(limit, lease_s)

    async def extend_leases(self, held: Mapping[UUID, int], lease_s: float) -> None:
        """Implement ``Database``."""
        await self._service.extend_leases(held, lease_s)

    async def backlog(self) -> int:
        """Implement ``Database``."""
        return await self._service.backlog()

    async def settle_overdue(self) -> Sequence[UUID]:
        """Implement ``Database``."""
        return await self._service.settle_overdue()

    async def grant_credits(self, user_id: UUID, amount: int) -> int:
        """Implement ``Database``."""
        return await self._service.grant_credits(user_id, amount)

    def accounts(self) -> AsyncIterator[Account]:
        """Implement ``Database``."""
        return self._service.accounts()

    async def check(self) -> None:
        """Implement ``Checked``."""
        try:
            version = await self._postgrest.call(
                "s3edge_schema_version", {}, self._project.public_headers(), repeatable=True
            )
        except Refusal as refusal:
            raise unavailable(fix_of(refusal, "SUPABASE_ANON_KEY")) from None
        if not isinstance(version, int) or version < SCHEMA_VERSION:
            raise unavailable(
                f"the database's schema is version {version}, and {SCHEMA_VERSION} is needed"
            )

    def examine(self) -> AsyncIterator[Finding]:
        """Implement ``Examinable``."""
        return examine_database(
            self._project, self._postgrest, self._clock, self._terms, SCHEMA_VERSION
        )

    def limitations(self) -> Sequence[str]:
        """Implement ``Limited``."""
        if self._project.service_key is not None:
            return []
        return [WITHOUT_SERVICE_KEY]

    @property
    def _settles_by_user(self) -> bool:
        return self._project.service_key is None

    async def _agreement(self) -> Terms:
        """Return the terms that the database charges by, agreed on once."""
        if self._agreed is None:
            failures = self._failures
            async with self._agreeing:
                if self._failures != failures:
                    # Who has waited for one that failed does not wait for another.
                    raise unavailable("The database does not answer; try again in a moment.")
                if self._agreed is None:
                    try:
                        self._agreed = await self._service.agree(self._terms)
                    except EdgeError:
                        self._failures += 1
                        raise
                    if self._agreed != self._terms:
                        _log.warning(
                            "the database's terms hold, not the settings': %s", self._agreed
                        )
        return self._agreed

    async def _reserve(self, user: User, new: NewTask) -> Reservation:
        answer = await self._as_user(
            user,
            "s3edge_reserve_task",
            {
                "p_task_id": new.id,
                "p_image_url": new.source_image_url,
                "p_text_prompt": new.text_prompt,
                "p_project_id": new.project_id,
                "p_idempotency_key": new.idempotency_key,
                "p_request_hash": new.request_hash,
            },
        )
        return shaped(reservation, answer)

    def _any_to_settle(self, rows: Sequence[TaskRow]) -> bool:
        """Return whether a user's own look has to end one of these tasks."""
        now = self._clock.now()
        return self._settles_by_user and any(
            not has_ended(row.status) and row.deadline_at <= now for row in rows
        )

    async def _settle(self, user: User) -> bool:
        """End the user's overdue tasks; return whether there were any."""
        return bool(await self._as_user(user, "s3edge_settle_overdue", {}))

    async def _rows(self, user: User, query: str, *, counted: bool = False) -> Rows:
        headers = self._project.user_headers(user.jwt)
        try:
            return await self._postgrest.rows(query, headers, counted=counted)
        except Refusal as refusal:
            raise error_of_user_call(refusal) from None

    async def _as_user(self, user: User, function: str, arguments: dict[str, Any]) -> Any:
        headers = self._project.user_headers(user.jwt)
        try:
            # Repeatable: a task's id is chosen here, and what is settled stays settled.
            return await self._postgrest.call(function, arguments, headers, repeatable=True)
        except Refusal as refusal:
            raise error_of_user_call(refusal) from None


def from_wiring(value: str, wiring: Wiring) -> SupabaseDatabase:  # noqa: ARG001 - the factories' signature
    """
    Return the database of the ``supabase`` setting.

    Raises:
        ValueError: A ``SUPABASE_*`` setting is missing or malformed.
    """
    return SupabaseDatabase(
        project_from_environment(wiring.vendor),
        wiring.clock,
        Terms(wiring.initial_credits, wiring.segment_cost, wiring.task_deadline_s),
    )


def _results_query(user_id: UUID, query: ResultQuery) -> str:
    parts = [f"select={LISTED_COLUMNS}", f"user_id=eq.{user_id}"]
    if query.project_id is not None:
        parts.append(f"project_id=eq.{query.project_id}")
    if query.status is not None:
        parts.append(f"status=eq.{query.status.value}")
    if query.after is None:
        parts.append(f"offset={query.offset}")
    else:
        # The first condition bounds the walk over the index, the second cuts ties.
        moment = query.after.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
        parts.append(f"created_at=lte.{quote(moment)}")
        parts.append("or=" + quote(f'(created_at.lt."{moment}",id.lt."{query.after.id}")'))
    # One more than asked tells whether others follow.
    parts += ["order=created_at.desc,id.desc", f"limit={query.limit + 1}"]
    return "segmentation_results?" + "&".join(parts)
