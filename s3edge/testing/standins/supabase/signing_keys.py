"""
The keys that sign access tokens, and what becomes of them.

A key is made as *standby* (already published, signs nothing), comes *in use*, is *previously used*
(still trusted) and in the end *revoked*. Beside them is the legacy shared secret, which is never
published. https://supabase.com/docs/guides/auth/signing-keys
"""

import secrets
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any
from uuid import uuid4

import jwt
from attrs import Factory, define, field, frozen
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm


class State(StrEnum):
    """Where a key stands."""

    STANDBY = "standby"
    IN_USE = "in_use"
    PREVIOUSLY_USED = "previously_used"
    REVOKED = "revoked"


LEGACY = "legacy"
"""Names the shared secret where a key is chosen."""

FOREIGN = "foreign"
"""Names a key that the project never had, where a key is chosen."""


@frozen
class SigningKey:
    """
    A key pair.

    Attributes:
        kid: Its id, which tokens carry.
        algorithm: ``ES256`` or ``RS256``.
        private_jwk: All of it, as a JWK.
    """

    kid: str
    algorithm: str
    private_jwk: Mapping[str, Any] = field(repr=False)

    @classmethod
    def create(cls, algorithm: str) -> "SigningKey":
        """Return a fresh one."""
        if algorithm == "ES256":
            jwk = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
        else:
            jwk = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048), as_dict=True)
        return cls(str(uuid4()), algorithm, jwk)

    def public_jwk(self) -> Mapping[str, Any]:
        """Return what the JWKS shows of it."""
        public = {
            name: value
            for name, value in self.private_jwk.items()
            if name in {"kty", "crv", "x", "y", "n", "e"}
        }
        return public | {
            "kid": self.kid,
            "alg": self.algorithm,
            "use": "sig",
            "key_ops": ["verify"],
            "ext": True,
        }

    def sign(self, claims: Mapping[str, Any], header: Mapping[str, Any]) -> str:
        """Return a token; header fields that are null are left out."""
        key = jwt.PyJWK({**self.private_jwk, "alg": self.algorithm}).key
        return _encoded(claims, key, self.algorithm, {"kid": self.kid, **header})


@define
class SigningKeys:
    """
    A project's keys.

    Attributes:
        jwt_secret: The legacy shared secret, for HS256.
        signs_with_legacy: Whether the project still signs with that secret and publishes no key.
        legacy_revoked: Whether that secret is not trusted any more.
        states: Each key pair and where it stands, the oldest first.
    """

    jwt_secret: str = field(factory=lambda: secrets.token_urlsafe(48), repr=False)
    signs_with_legacy: bool = False
    legacy_revoked: bool = False
    states: list[tuple[SigningKey, State]] = Factory(list)

    @classmethod
    def create(cls) -> "SigningKeys":
        """Return those of a new project: one in use, one on standby."""
        return cls(
            states=[
                (SigningKey.create("ES256"), State.IN_USE),
                (SigningKey.create("RS256"), State.STANDBY),
            ]
        )

    def jwks(self) -> Mapping[str, Any]:
        """Return the published keys; none while tokens are signed with the shared secret."""
        return {"keys": [key.public_jwk() for key in self.trusted()]}

    def trusted(self) -> Sequence[SigningKey]:
        """Return the key pairs whose signature counts."""
        if self.signs_with_legacy:
            return []
        return [key for key, state in self.states if state is not State.REVOKED]

    def rotate(self) -> None:
        """Bring the standby key in use, keep the old one as previously used, and make a new one."""
        was_in_use = self._newest(State.IN_USE)
        self.states = [(key, _AFTER_ROTATION.get(state, state)) for key, state in self.states]
        self.states.append((SigningKey.create(was_in_use.algorithm), State.STANDBY))

    def revoke(self) -> None:
        """Trust no previously used key any more."""
        self.states = [
            (key, State.REVOKED if state is State.PREVIOUSLY_USED else state)
            for key, state in self.states
        ]

    def sign(self, claims: Mapping[str, Any], header: Mapping[str, Any], key: str) -> str:
        """
        Return a token.

        Args:
            claims: What it says.
            header: Fields that replace those of its header; null leaves one out. An ``alg`` of
                ``none`` leaves the signature out.
            key: A state, whose newest key signs; ``legacy`` or ``foreign``.

        Raises:
            LookupError: No key is in that state.
        """
        if header.get("alg") == "none":
            return _encoded(claims, None, "none", header)
        if key == LEGACY or (key == State.IN_USE and self.signs_with_legacy):
            return _encoded(claims, self.jwt_secret, "HS256", header)
        if key == FOREIGN:
            # Under the id of a known key: it must be the signature that gives it away.
            return SigningKey.create("ES256").sign(
                claims, {"kid": self._newest(State.IN_USE).kid, **header}
            )
        return self._newest(State(key)).sign(claims, header)

    def _newest(self, wanted: State) -> SigningKey:
        for key, state in reversed(self.states):
            if state is wanted:
                return key
        raise LookupError(wanted)


_AFTER_ROTATION = {State.STANDBY: State.IN_USE, State.IN_USE: State.PREVIOUSLY_USED}


def _encoded(claims: Mapping[str, Any], key: Any, algorithm: str, header: Mapping[str, Any]) -> str:
    said = {name: value for name, value in header.items() if value is not None and name != "alg"}
    return jwt.encode(dict(claims), key, algorithm=algorithm, headers=said)
