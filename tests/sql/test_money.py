"""Random sequences of everything that can happen to money, against a model that cannot lose any."""

from typing import Any, ClassVar
from uuid import UUID

import hypothesis.strategies as st
import psycopg
from attrs import define, field
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.sql.conftest import Caller, Project


START = 6
"""What each user has at first: soon spent."""

USERS = st.integers(0, 1)


@define
class _Task:
    user: int
    cost: int
    status: str = "pending"

    @property
    def is_open(self) -> bool:
        return self.status in ("pending", "processing")


@define
class _Model:
    """What the database must say; balances follow from the tasks."""

    cost: int = 1
    granted: list[int] = field(factory=lambda: [START, START])
    tasks: dict[str, _Task] = field(factory=dict)
    keys: dict[tuple[int, str], tuple[str, str]] = field(factory=dict)

    def used(self, user: int) -> int:
        return sum(
            task.cost
            for task in self.tasks.values()
            if task.user == user and task.status != "error"
        )

    def credits(self, user: int) -> int:
        return self.granted[user] - self.used(user)


class _Machine(RuleBasedStateMachine):
    project: ClassVar[Project]

    def __init__(self) -> None:
        super().__init__()
        project = self._project = type(self).project
        self._service = project.service()
        self._users = [project.user() for _ in range(2)]
        self._model = _Model()
        project.rows(
            "update public.users_profile set credits = %s, credits_granted = %s"
            " where id = any (%s::uuid[])",
            START,
            START,
            self._ids,
        )
        self._configure(1)

    @property
    def _ids(self) -> list[object]:
        return [user.claims["sub"] for user in self._users]

    def _configure(self, cost: int) -> None:
        self._service.call(
            "s3edge_configure", p_initial_credits=100, p_segment_cost=cost, p_task_deadline_s=900
        )

    @rule(cost=st.integers(0, 3))
    def change_the_price(self, cost: int) -> None:
        self._configure(cost)
        self._model.cost = cost

    @rule(user=USERS, amount=st.integers(1, 4))
    def grant(self, user: int, amount: int) -> None:
        self._model.granted[user] += amount
        balance = self._service.call(
            "s3edge_grant_credits", p_user_id=self._ids[user], p_amount=amount
        )
        assert balance == self._model.credits(user)

    @rule(user=USERS)
    def reserve(self, user: int) -> None:
        self._reserve(user, {})

    @rule(user=USERS, key=st.sampled_from("kl"), request_hash=st.sampled_from("ab"))
    def reserve_with_a_key(self, user: int, key: str, request_hash: str) -> None:
        arguments = {"p_idempotency_key": key, "p_request_hash": request_hash}
        first, first_hash = self._model.keys.get((user, key), (None, request_hash))
        if first is None:
            task_id = self._reserve(user, arguments)
            if task_id is not None:
                self._model.keys[user, key] = (task_id, request_hash)
        elif first_hash == request_hash:
            answer = self._users[user].reserve(**arguments)
            assert (answer["replayed"], answer["task"]["id"]) == (True, first)
            assert answer["credits"] == self._model.credits(user)
        else:
            assert self._refusal(user, arguments) == "PT422"

    def _reserve(self, user: int, arguments: dict[str, Any]) -> str | None:
        if self._model.credits(user) < self._model.cost:
            assert self._refusal(user, arguments) == "PT402"
            return None
        answer = self._users[user].reserve(**arguments)
        task_id: str = answer["task"]["id"]
        self._model.tasks[task_id] = _Task(user, self._model.cost)
        assert (answer["replayed"], answer["credits"]) == (False, self._model.credits(user))
        assert self._users[user].reserve(UUID(task_id), **arguments) == answer
        return task_id

    def _refusal(self, user: int, arguments: dict[str, Any]) -> str | None:
        try:
            self._users[user].reserve(**arguments)
        except psycopg.Error as error:
            return error.sqlstate
        return None

    @precondition(lambda self: self._model.tasks)
    @rule(data=st.data(), status=st.sampled_from(["pending", "processing", "done", "error"]))
    def write_a_status(self, data: st.DataObject, status: str) -> None:
        task_id = self._chosen(data)
        self._service.run(
            "update public.segmentation_results set status = %s, cost = 3 where id = %s",
            status,
            task_id,
        )
        self._end(task_id, status)

    @precondition(lambda self: self._model.tasks)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        task_id = self._chosen(data)
        changed = self._service.call(
            "s3edge_complete_task",
            p_task_id=task_id,
            p_mask_image_url="https://s/m",
            p_labels=None,
            p_metadata=None,
        )
        assert changed == self._end(task_id, "done")

    @precondition(lambda self: self._model.tasks)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        task_id = self._chosen(data)
        changed = self._service.call(
            "s3edge_fail_task", p_task_id=task_id, p_error_code="X", p_error_message="x"
        )
        assert changed == self._end(task_id, "error")

    @precondition(lambda self: self._model.tasks)
    @rule(data=st.data(), asks=USERS)
    def let_a_deadline_pass(self, data: st.DataObject, asks: int) -> None:
        task_id = self._chosen(data)
        self._project.rows(
            "update public.segmentation_results set deadline_at = now() where id = %s", task_id
        )
        task = self._model.tasks[task_id]
        expected = [(UUID(task_id),)] if task.is_open and task.user == asks else []
        # A task of the other user's stays overdue until that user asks.
        overdue = self._settled(self._users[asks])
        assert [row for row in overdue if row[0] == UUID(task_id)] == expected

    def _settled(self, user: Caller) -> list[tuple[Any, ...]]:
        overdue = user.call_set("s3edge_settle_overdue")
        for (task_id,) in overdue:
            assert self._end(str(task_id), "error")
        return overdue

    def _chosen(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(list(self._model.tasks)))

    def _end(self, task_id: str, status: str) -> bool:
        """Let a task change as the rules say; return whether it did."""
        task = self._model.tasks[task_id]
        if not task.is_open:
            return False
        task.status = status
        return True

    @invariant()
    def the_books_add_up(self) -> None:
        found = self._project.rows(
            "select user_id::text, credits, granted, used, live_cost"
            " from s3edge.accounts(null, 500) where user_id = any (%s::uuid[])",
            self._ids,
        )
        assert sorted(found) == sorted(
            (
                user_id,
                self._model.credits(user),
                self._model.granted[user],
                self._model.used(user),
                self._model.used(user),
            )
            for user, user_id in enumerate(self._ids)
        )

    @invariant()
    def tasks_are_as_they_ended(self) -> None:
        found = self._project.rows(
            "select id::text, status, cost from public.segmentation_results"
            " where user_id = any (%s::uuid[])",
            self._ids,
        )
        assert sorted(found) == sorted(
            (task_id, task.status, task.cost) for task_id, task in self._model.tasks.items()
        )


def test_no_sequence_makes_or_loses_credits(project: Project) -> None:
    """After any sequence: the balance is what was granted less what the tasks not in error cost."""

    class OfThisProject(_Machine):
        pass

    OfThisProject.project = project
    run_state_machine_as_test(
        OfThisProject, settings=settings(max_examples=30, stateful_step_count=30)
    )
