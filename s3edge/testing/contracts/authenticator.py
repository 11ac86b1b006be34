"""What any ``Authenticator`` must do."""

from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest
from attrs import frozen

from s3edge.errors import Code
from s3edge.ports import Authenticator
from s3edge.testing.contracts.refusal import refused
from s3edge.values import Tier, User


LIFETIME_S = 3600.0

CLOCK_SKEW_S = 300.0
"""More than any verifier forgives an expired token (RFC 7519, section 4.1.4: a few minutes)."""

GARBAGE = (
    "x",
    "not a token",
    "..",
    "a.b.c",
    # {"alg":"none"} and {}: an unsecured JWT (RFC 7519, section 6).
    "eyJhbGciOiJub25lIn0.e30.",
    # {"alg":"HS256","typ":"JWT"}, {} and a signature by the empty key.
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.LwimMJA3puF3ioGeS-tfczR3370GXBZMIL-bdpu4hOU",
    # A header that is JSON but no object.
    "W10.e30.AAAA",
    "é.ü.ß",
    "\x00",
    "x" * 100_000,
)


@frozen
class AuthenticatorHarness:
    """
    What the suite needs.

    Attributes:
        authenticator: The port under test.
        issue: Makes a token of this user's that is good for so many seconds; the ``jwt`` of the user
            that is given says nothing.
        advance: Lets so many seconds pass, for the authenticator.
        tamper: Returns a token that differs from the given one in its signature's bits.
    """

    authenticator: Authenticator
    issue: Callable[[User, float], Awaitable[str]]
    advance: Callable[[float], Awaitable[None]]
    tamper: Callable[[str], str]


class AuthenticatorContract:
    """
    The promises of ``Authenticator``, checked.

    A subclass supplies the fixture ``harness``.
    """

    pytestmark = pytest.mark.anyio

    async def test_check_passes(self, harness: AuthenticatorHarness) -> None:
        """The dependency answers, and tokens are good before and after."""
        token = await harness.issue(User(uuid4()), LIFETIME_S)
        before = await harness.authenticator.authenticate(token)
        await harness.authenticator.check()
        assert await harness.authenticator.authenticate(token) == before

    async def test_a_valid_token_names_its_user(self, harness: AuthenticatorHarness) -> None:
        """Every tier's token gives its user, with the token itself to pass on."""
        for tier in Tier:
            user = User(uuid4(), tier)
            token = await harness.issue(user, LIFETIME_S)
            named = await harness.authenticator.authenticate(token)
            assert (named.user_id, named.tier) == (user.user_id, tier)
            assert (named.jwt, named.is_anonymous) == (token, False)

    async def test_garbage_is_refused(self, harness: AuthenticatorHarness) -> None:
        """Whatever is no token of ours is refused by the same code, never by another error."""
        for token in GARBAGE:
            with refused(Code.AUTH_INVALID):
                await harness.authenticator.authenticate(token)

    async def test_a_tampered_token_is_refused(self, harness: AuthenticatorHarness) -> None:
        """A token is worth nothing with another signature, a longer one or none."""
        token = await harness.issue(User(uuid4()), LIFETIME_S)
        await harness.authenticator.authenticate(token)
        for tampered in (harness.tamper(token), token + "AAAA", token[: len(token) // 2]):
            assert tampered != token
            with refused(Code.AUTH_INVALID):
                await harness.authenticator.authenticate(tampered)

    async def test_an_expired_token_is_refused(self, harness: AuthenticatorHarness) -> None:
        """A token is good until its time, also after it was seen once, and not beyond."""
        token = await harness.issue(User(uuid4()), LIFETIME_S)
        await harness.authenticator.authenticate(token)
        await harness.advance(LIFETIME_S - CLOCK_SKEW_S)
        await harness.authenticator.authenticate(token)
        await harness.advance(2 * CLOCK_SKEW_S)
        with refused(Code.AUTH_INVALID):
            await harness.authenticator.authenticate(token)
