"""When credits may be taken, and whether the books are right."""

from s3edge.errors import Code, EdgeError
from s3edge.values import Account


MAX_GRANT = 1_000_000_000
"""The most credits one grant may add."""


def insufficient_credits(cost: int, balance: int) -> EdgeError:
    """Return the refusal of a task that the balance does not cover."""
    return EdgeError(
        Code.INSUFFICIENT_CREDITS,
        f"A segmentation costs {_credits(cost)}; you have {_credits(balance)}.",
    )


def key_reused() -> EdgeError:
    """Return the refusal of an idempotency key that came before with another request."""
    return EdgeError(
        Code.IDEMPOTENCY_KEY_REUSED,
        "This Idempotency-Key was used for another request; make a new key.",
    )


def faults_of(account: Account) -> list[str]:
    """Return what is wrong with an account's books; nothing at every quiet moment."""
    faults = []
    if account.credits < 0:
        faults.append(f"the balance is {account.credits}")
    if account.credits != account.granted - account.used:
        faults.append(
            f"the balance is {account.credits}, but {account.granted} granted less"
            f" {account.used} used is {account.granted - account.used}"
        )
    if account.used != account.live_cost:
        faults.append(
            f"{account.used} credits are used, but the tasks that did not fail cost"
            f" {account.live_cost}"
        )
    return faults


def _credits(amount: int) -> str:
    return f"{amount} credit" if amount == 1 else f"{amount} credits"
