"""Verifies access tokens of Supabase Auth, and of anything that issues the same kind."""

from collections.abc import Sequence
from typing import Any

import jwt
from attrs import field, frozen
from jwt.types import Options

from s3edge.errors import Code, EdgeError
from s3edge.ports import Clock
from s3edge.rules.claims import DEFAULT_TIER_CLAIM, check_claims, expiry_of, user_from_claims
from s3edge.values import User
from s3edge_supabase.jwks import JwksCache
from s3edge_supabase.verified import VerifiedTokens


PUBLIC_KEY_ALGORITHMS = ("ES256", "RS256")
"""What Supabase signs with; EdDSA can be added."""

LEGACY_ALGORITHM = "HS256"

MAX_TOKEN_CHARACTERS = 8192

# The claims are checked by rules that take the time as an argument.
_SIGNATURE_ONLY: Options = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


@frozen
class SupabaseAuthenticator:
    """
    The ``Authenticator`` port by signature: no request is made for a token whose key is known.

    A token that was good is taken for good for a minute more, or until it expires.

    Attributes:
        keys: The issuer's public keys.
        issuer: What ``iss`` must be.
        clock: Tells when a token has expired.
        tier_claim: Path of the tier in the claims.
        algorithms: Which public-key algorithms are accepted.
        legacy_secret: Verifies HS256, which is refused without it.
    """

    keys: JwksCache
    issuer: str
    clock: Clock
    tier_claim: str = DEFAULT_TIER_CLAIM
    algorithms: Sequence[str] = PUBLIC_KEY_ALGORITHMS
    legacy_secret: str | None = field(default=None, repr=False)
    _verified: VerifiedTokens = field(init=False, factory=VerifiedTokens, repr=False, eq=False)

    async def authenticate(self, token: str) -> User:
        """Implement ``Authenticator``."""
        now = self.clock.now()
        known = self._verified.get(token, now)
        if known is not None:
            return known
        claims = await self._verified_claims(token)
        check_claims(claims, now=now, issuer=self.issuer)
        user = user_from_claims(claims, token, self.tier_claim)
        self._verified.add(token, user, now, expiry_of(claims))
        return user

    async def check(self) -> None:
        """Implement ``Checked``."""
        await self.keys.check(may_be_empty=self.legacy_secret is not None)

    async def _verified_claims(self, token: str) -> dict[str, Any]:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise _invalid("The token is too long.")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise _invalid("The token is not a JWT.") from None
        key, algorithm = await self._key_for(header)
        try:
            return jwt.decode(token, key, algorithms=[algorithm], options=_SIGNATURE_ONLY)
        except jwt.PyJWTError:
            raise _invalid("The token's signature is wrong.") from None

    async def _key_for(self, header: dict[str, Any]) -> tuple[jwt.PyJWK | str, str]:
        """Return the key that must have signed, and the algorithm that this key is for."""
        algorithm = header.get("alg")
        if algorithm == LEGACY_ALGORITHM and self.legacy_secret is not None:
            return self.legacy_secret, LEGACY_ALGORITHM
        if algorithm not in self.algorithms:
            raise _invalid("The token is signed with an algorithm that is not accepted.")
        kid = header.get("kid")
        key = await self.keys.key(kid if isinstance(kid, str) else None)
        # The key decides the algorithm, never the token: else a public key could pass for a secret.
        if key is None or key.algorithm_name != algorithm:
            raise _invalid("The token is signed with an unknown key.")
        return key, key.algorithm_name


def _invalid(message: str) -> EdgeError:
    return EdgeError(Code.AUTH_INVALID, message)
