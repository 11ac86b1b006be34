"""Users call the functions by themselves, with whatever arguments they like."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.sql.conftest import INITIAL_CREDITS, Caller, Project, reservation


HASH = "0" * 64


@pytest.fixture
def user(shared: Project) -> Caller:
    """Sign somebody up."""
    return shared.user()


def _assert_untouched(shared: Project, *users: Caller) -> None:
    """Check that nobody paid, and that no task or usage row is theirs."""
    for user in users:
        assert shared.credits(user) == INITIAL_CREDITS
        assert shared.usage(user) == []
        assert user.run("select * from public.segmentation_results") == []


@pytest.mark.parametrize(
    "changes",
    [
        {"p_task_id": None},
        {"p_image_url": None},
        {"p_image_url": ""},
        {"p_image_url": "https://s/" + "x" * 2039},
        {"p_text_prompt": None},
        {"p_text_prompt": ""},
        {"p_text_prompt": "x" * 501},
        {"p_idempotency_key": "", "p_request_hash": HASH},
        {"p_idempotency_key": "x" * 256, "p_request_hash": HASH},
        {"p_idempotency_key": "x", "p_request_hash": None},
        {"p_idempotency_key": "x", "p_request_hash": "0" * 65},
        {"p_request_hash": "0" * 65},
    ],
    ids=lambda changes: "-".join(f"{name}={str(value)[:9]}" for name, value in changes.items()),
)
def test_a_request_that_no_gateway_sends_is_refused(
    shared: Project, user: Caller, changes: Mapping[str, object]
) -> None:
    """Absent, empty and oversized values are an error that charges nothing."""
    error = user.call_refused("s3edge_reserve_task", **{**reservation(), **changes})
    assert (error.sqlstate, error.diag.message_primary) == ("PT400", "invalid_request")
    _assert_untouched(shared, user)


def test_the_longest_request_is_accepted(shared: Project, user: Caller) -> None:
    """The limits are the contract's, not one less."""
    user.reserve(
        p_image_url="x" * 2048,
        p_text_prompt="貓" * 500,
        p_idempotency_key="x" * 255,
        p_request_hash=HASH,
    )
    assert shared.credits(user) == INITIAL_CREDITS - 1


@pytest.mark.parametrize("argument", ["p_user_id", "p_cost", "p_credits", "p_status"])
def test_neither_user_nor_price_is_an_argument(
    shared: Project, user: Caller, argument: str
) -> None:
    """There is no function that takes them."""
    forged = {**reservation(), argument: None}
    assert user.call_refused("s3edge_reserve_task", **forged).sqlstate == "42883"
    _assert_untouched(shared, user)


def test_another_users_task_id_is_refused(shared: Project, user: Caller) -> None:
    """It changes nothing for either: not the task, not the money, and it tells nothing of the task."""
    other = shared.user()
    task = shared.task(other.reserve(p_idempotency_key="k", p_request_hash=HASH)["task"]["id"])
    for changes in ({}, {"p_idempotency_key": "k", "p_request_hash": HASH}):
        error = user.call_refused("s3edge_reserve_task", **reservation(task["id"], **changes))
        assert (error.sqlstate, error.diag.message_primary) == ("PT409", "task_id_taken")
        assert error.diag.message_detail is None
    assert shared.task(task["id"]) == task
    assert shared.usage(other) == [("segment", 1)]
    _assert_untouched(shared, user)


def test_an_own_task_id_with_another_key_is_refused(shared: Project, user: Caller) -> None:
    """An id stands for one request."""
    task = user.reserve(p_idempotency_key="k", p_request_hash=HASH)["task"]
    for changes in ({}, {"p_idempotency_key": "l", "p_request_hash": HASH}):
        error = user.call_refused("s3edge_reserve_task", **reservation(task["id"], **changes))
        assert error.sqlstate == "PT409"
    assert shared.usage(user) == [("segment", 1)]


@pytest.mark.parametrize("whose", ["another's", "nobody's"])
def test_another_users_project_is_refused(shared: Project, user: Caller, whose: str) -> None:
    """It is refused like one that is not there."""
    project = uuid4()
    if whose == "another's":
        project = shared.user().value(
            "insert into public.projects (name) values ('x') returning id"
        )
    error = user.call_refused("s3edge_reserve_task", **reservation(p_project_id=project))
    assert (error.sqlstate, error.diag.message_primary) == ("PT400", "unknown_project")
    _assert_untouched(shared, user)


def test_nobody_reserves_without_signing_in(shared: Project) -> None:
    """Neither somebody anonymous to the API nor a token that names nobody."""
    assert shared.anon().call_refused("s3edge_reserve_task", **reservation()).sqlstate == "42501"
    nobody = Caller(shared.anon().connections, "authenticated", {"role": "authenticated"})
    for function, arguments in (
        ("s3edge_reserve_task", reservation()),
        ("s3edge_settle_overdue", {}),
    ):
        error = nobody.call_refused(function, **arguments)
        assert (error.sqlstate, error.diag.message_primary) == ("PT401", "no_user")


def test_a_deleted_users_token_buys_nothing(shared: Project, user: Caller) -> None:
    """A token outlives its user; the function does not make them a new profile."""
    shared.as_auth("delete from auth.users where id = %s", user.claims["sub"])
    error = user.call_refused("s3edge_reserve_task", **reservation())
    assert (error.sqlstate, error.diag.message_primary) == ("PT404", "unknown_user")
    assert user.run("select * from public.users_profile") == []


def test_users_settle_their_own_tasks_only(shared: Project, user: Caller) -> None:
    """What is overdue is refunded to whoever asks, and others' tasks stay under way."""
    other = shared.user()
    mine, theirs = (caller.reserve()["task"]["id"] for caller in (user, other))
    shared.rows(
        "update public.segmentation_results set deadline_at = %s where id = any (%s::uuid[])",
        datetime.now(UTC) - timedelta(seconds=1),
        [mine, theirs],
    )
    assert [str(row[0]) for row in user.call_set("s3edge_settle_overdue")] == [mine]
    assert user.call_set("s3edge_settle_overdue") == []
    assert (shared.task(mine)["status"], shared.task(theirs)["status"]) == ("error", "pending")
    assert shared.usage(user) == [("segment", 1), ("refund", -1)]
    assert shared.usage(other) == [("segment", 1)]


@pytest.mark.parametrize("amount", [None, 0, -1, 1_000_000_001, -(2**62)])
def test_no_grant_takes_credits_away(shared: Project, user: Caller, amount: Any) -> None:
    """Not by zero or less, nor more than a billion, also when a server asks for it."""
    service = shared.service()
    error = service.call_refused(
        "s3edge_grant_credits", p_user_id=user.claims["sub"], p_amount=amount
    )
    assert (error.sqlstate, error.diag.message_primary) == ("PT400", "invalid_request")
    _assert_untouched(shared, user)


@pytest.mark.parametrize(
    "changes",
    [{"p_segment_cost": -1}, {"p_initial_credits": -1}, {"p_task_deadline_s": 0}],
    ids=str,
)
def test_no_price_is_negative(shared: Project, changes: Mapping[str, object]) -> None:
    """A task that earned credits would mint them; the settings keep what they had."""
    arguments = {"p_initial_credits": 100, "p_segment_cost": 1, "p_task_deadline_s": 900}
    error = shared.service().call_refused("s3edge_configure", **{**arguments, **changes})
    assert error.sqlstate == "23514"
    assert shared.anon().call("s3edge_settings")["segment_cost"] == 1


@pytest.mark.parametrize(
    "statement",
    [
        "update public.users_profile set credits = -1 where id = %s",
        (
            "insert into public.segmentation_results (user_id, source_image_url, text_prompt, cost)"
            " values (%s, 'https://s', 'p', -5)"
        ),
    ],
)
def test_no_row_holds_negative_money(shared: Project, user: Caller, statement: str) -> None:
    """Not even one that a server writes by itself."""
    assert shared.service().refused(statement, user.claims["sub"]).sqlstate == "23514"


def test_a_user_cannot_choose_their_tier(shared: Project) -> None:
    """What users say of themselves at sign-up becomes their name and picture, cut to size; no more."""
    user_id = shared.sign_up(
        metadata={
            "name": "x" * 300,
            "avatar_url": "y" * 3000,
            "tier": "enterprise",
            "credits": 10**6,
            "credits_granted": 10**6,
        }
    )
    assert shared.rows(
        "select display_name, avatar_url, tier, credits, credits_granted"
        " from public.users_profile where id = %s",
        user_id,
    ) == [("x" * 200, "y" * 2048, "free", INITIAL_CREDITS, INITIAL_CREDITS)]


@pytest.mark.parametrize("metadata", [None, [], "text", {}, {"name": {"first": "A"}}], ids=str)
def test_sign_up_takes_any_metadata(shared: Project, metadata: object) -> None:
    """Nothing that a user can send as metadata keeps a sign-up from working."""
    assert shared.credits(shared.user(shared.sign_up(metadata=metadata))) == INITIAL_CREDITS
