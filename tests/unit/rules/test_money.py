"""When credits may be taken, and whether the books are right."""

from uuid import UUID

import pytest

from s3edge.errors import Code
from s3edge.rules.money import faults_of, insufficient_credits, key_reused
from s3edge.values import Account


USER = UUID("a11ce000-0000-4000-8000-000000000001")


def account(credits_: int, granted: int, used: int, live_cost: int) -> Account:
    """Return an account of these numbers."""
    return Account(USER, credits_, granted, used, live_cost)


@pytest.mark.parametrize(
    "books",
    [
        account(100, 100, 0, 0),
        account(0, 100, 100, 100),
        account(97, 100, 3, 3),
        account(0, 0, 0, 0),
    ],
)
def test_right_books_have_no_faults(books: Account) -> None:
    """The balance is what was granted less what the living tasks cost."""
    assert faults_of(books) == []


@pytest.mark.parametrize(
    ("books", "faults"),
    [
        (account(99, 100, 0, 0), 1),
        (account(101, 100, 0, 0), 1),
        (account(98, 100, 2, 1), 1),
        (account(98, 100, 2, 3), 1),
        (account(-1, 0, 1, 1), 1),
        (account(-2, 100, 5, 4), 3),
    ],
)
def test_each_fault_is_named(books: Account, faults: int) -> None:
    """Money lost or made, refunds missing or doubled and overdrafts are told apart."""
    assert len(faults_of(books)) == faults


def test_the_refusal_tells_price_and_balance() -> None:
    """A user reads what it costs and what they have, in good grammar."""
    error = insufficient_credits(1, 0)

    assert error.code is Code.INSUFFICIENT_CREDITS
    assert "costs 1 credit;" in error.message
    assert "0 credits" in error.message
    assert not error.retryable


def test_a_reused_key_has_a_code_of_its_own() -> None:
    """A client can tell a reused key from a bad request."""
    assert key_reused().code is Code.IDEMPOTENCY_KEY_REUSED
