"""What is done to tasks and money without a user: with the service key, or not at all."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

from s3edge.errors import Code, EdgeError
from s3edge.rules.lifecycle import COUNTED_BACKLOG
from s3edge.rules.schema_refusals import refusal_of_grant
from s3edge.rules.storable import without_nul
from s3edge.values import Account, Outcome, Task
from s3edge_supabase.postgrest import Postgrest, Refusal
from s3edge_supabase.project import SupabaseProject
from s3edge_supabase.refusals import error_of_service_call
from s3edge_supabase.rows import Terms, account_values, ids, number, shaped, task_rows, terms


ACCOUNTS_AT_A_TIME = 500


class ServiceSide(Protocol):
    """Those calls of ``Database`` that name no user."""

    async def agree(self, wanted: Terms) -> Terms:
        """Have the database charge by these terms, if it can be told; return those it charges by."""

    async def start_task(self, task_id: UUID, *, attempt: int | None) -> bool:
        """Implement ``Database``."""

    async def complete_task(self, task_id: UUID, outcome: Outcome, *, attempt: int | None) -> bool:
        """Implement ``Database``."""

    async def fail_task(
        self, task_id: UUID, code: Code, message: str, *, attempt: int | None
    ) -> bool:
        """Implement ``Database``."""

    async def claim_tasks(self, limit: int, lease_s: float) -> Sequence[Task]:
        """Implement ``Database``."""

    async def extend_leases(self, held: Mapping[UUID, int], lease_s: float) -> None:
        """Implement ``Database``."""

    async def backlog(self) -> int:
        """Implement ``Database``."""

    async def settle_overdue(self) -> Sequence[UUID]:
        """Implement ``Database``."""

    async def grant_credits(self, user_id: UUID, amount: int) -> int:
        """Implement ``Database``."""

    def accounts(self) -> AsyncIterator[Account]:
        """Implement ``Database``."""


class WithServiceKey:
    """
    Everything, by functions that only the service role may call.

    Args:
        postgrest: The endpoint.
        project: Holds the key.
    """

    def __init__(self, postgrest: Postgrest, project: SupabaseProject) -> None:
        self._postgrest = postgrest
        self._headers = project.service_headers()

    async def agree(self, wanted: Terms) -> Terms:
        """Write the gateway's settings into the database, where prices are read."""
        await self._call(
            "s3edge_configure",
            {
                "p_initial_credits": wanted.initial_credits,
                "p_segment_cost": wanted.segment_cost,
                "p_task_deadline_s": wanted.task_deadline_s,
            },
        )
        return wanted

    async def start_task(self, task_id: UUID, *, attempt: int | None) -> bool:
        """Implement ``Database``."""
        return await self._change("start", task_id, attempt, {})

    async def complete_task(self, task_id: UUID, outcome: Outcome, *, attempt: int | None) -> bool:
        """Implement ``Database``."""
        arguments = {
            "p_mask_image_url": outcome.mask_image_url,
            "p_labels": without_nul(list(outcome.labels)),
            "p_metadata": without_nul(dict(outcome.metadata)),
        }
        return await self._change("complete", task_id, attempt, arguments)

    async def fail_task(
        self, task_id: UUID, code: Code, message: str, *, attempt: int | None
    ) -> bool:
        """Implement ``Database``."""
        arguments = {"p_error_code": code.value, "p_error_message": without_nul(message)}
        return await self._change("fail", task_id, attempt, arguments)

    async def claim_tasks(self, limit: int, lease_s: float) -> Sequence[Task]:
        """Implement ``Database``."""
        # Not repeated: the tasks of a lost answer come back when their leases run out.
        rows = await self._call(
            "s3edge_claim_tasks", {"p_limit": limit, "p_lease_s": lease_s}, repeatable=False
        )
        return [row.task() for row in shaped(task_rows, rows)]

    async def extend_leases(self, held: Mapping[UUID, int], lease_s: float) -> None:
        """Implement ``Database``."""
        if held:
            arguments = {
                "p_task_ids": list(held),
                "p_attempts": list(held.values()),
                "p_lease_s": lease_s,
            }
            await self._call("s3edge_hold_attempts", arguments)

    async def backlog(self) -> int:
        """Implement ``Database``."""
        answer = await self._call("s3edge_backlog", {"p_limit": COUNTED_BACKLOG})
        return shaped(number, answer)

    async def settle_overdue(self) -> Sequence[UUID]:
        """Implement ``Database``."""
        return shaped(ids, await self._call("s3edge_settle_overdue", {}))

    async def grant_credits(self, user_id: UUID, amount: int) -> int:
        """
        Implement ``Database``.

        Raises:
            EdgeError: ``NOT_FOUND`` for a user who never signed up.
        """
        try:
            # Not repeated: twice would be twice as much.
            answer = await self._postgrest.call(
                "s3edge_grant_credits",
                {"p_user_id": user_id, "p_amount": amount},
                self._headers,
                repeatable=False,
            )
        except Refusal as refusal:
            known = refusal_of_grant(refusal.code)
            raise (known or error_of_service_call(refusal)) from None
        return shaped(number, answer)

    async def accounts(self) -> AsyncIterator[Account]:
        """Implement ``Database``."""
        after: UUID | None = None
        while True:
            rows = await self._call(
                "s3edge_accounts", {"p_after": after, "p_limit": ACCOUNTS_AT_A_TIME}
            )
            stretch = shaped(account_values, rows)
            for account in stretch:
                yield account
            if len(stretch) < ACCOUNTS_AT_A_TIME:
                return
            after = stretch[-1].user_id

    async def _change(
        self, change: str, task_id: UUID, attempt: int | None, arguments: Mapping[str, Any]
    ) -> bool:
        """Change a task, or an attempt at it; return whether anything was changed."""
        function, named = f"s3edge_{change}_task", {"p_task_id": task_id, **arguments}
        if attempt is not None:
            function, named = f"s3edge_{change}_attempt", {**named, "p_attempt": attempt}
        return await self._call(function, named) is True

    async def _call(
        self, function: str, arguments: Mapping[str, Any], *, repeatable: bool = True
    ) -> Any:
        try:
            return await self._postgrest.call(
                function, arguments, self._headers, repeatable=repeatable
            )
        except Refusal as refusal:
            raise error_of_service_call(refusal) from None


class WithoutServiceKey:
    """
    What is left when nobody may write outcomes here.

    The inference server writes them, with a key of its own; what it leaves unanswered is settled with
    the token of the task's user when they read it. A task that this process drops is not taken up.

    Args:
        postgrest: The endpoint.
        project: Holds the publishable key.
    """

    def __init__(self, postgrest: Postgrest, project: SupabaseProject) -> None:
        self._postgrest = postgrest
        self._headers = project.public_headers()

    async def agree(self, wanted: Terms) -> Terms:  # noqa: ARG002 - the database cannot be told
        """Return the terms that the database has."""
        try:
            answer = await self._postgrest.call(
                "s3edge_settings", {}, self._headers, repeatable=True
            )
        except Refusal as refusal:
            raise error_of_service_call(refusal) from None
        return shaped(terms, answer)

    async def start_task(self, task_id: UUID, *, attempt: int | None) -> bool:  # noqa: ARG002 - every task may be tried
        """Let the task be tried; the inference server says that it is."""
        return True

    async def complete_task(
        self,
        task_id: UUID,  # noqa: ARG002 - its
        outcome: Outcome,  # noqa: ARG002 - likewise
        *,
        attempt: int | None,  # noqa: ARG002 - likewise
    ) -> bool:
        """Leave the outcome to the inference server."""
        return False

    async def fail_task(
        self,
        task_id: UUID,  # noqa: ARG002 - its deadline's
        code: Code,  # noqa: ARG002 - likewise
        message: str,  # noqa: ARG002 - likewise
        *,
        attempt: int | None,  # noqa: ARG002 - likewise
    ) -> bool:
        """Leave the task to its deadline."""
        return False

    async def claim_tasks(self, limit: int, lease_s: float) -> Sequence[Task]:  # noqa: ARG002 - none
        """Find nothing: nobody may see the tasks of all users."""
        return []

    async def extend_leases(self, held: Mapping[UUID, int], lease_s: float) -> None:
        """Hold nothing: nobody else takes a task up either."""

    async def backlog(self) -> int:
        """Count nothing: nobody may see the tasks of all users."""
        return 0

    async def settle_overdue(self) -> Sequence[UUID]:
        """Settle nothing: users do, each their own."""
        return []

    async def grant_credits(self, user_id: UUID, amount: int) -> int:  # noqa: ARG002 - nobody gets any
        """Refuse."""
        raise _needs_key("give credits")

    def accounts(self) -> AsyncIterator[Account]:
        """Refuse."""
        raise _needs_key("see all accounts")


def _needs_key(purpose: str) -> EdgeError:
    return EdgeError(Code.FORBIDDEN, f"To {purpose}, set SUPABASE_SERVICE_ROLE_KEY.")
