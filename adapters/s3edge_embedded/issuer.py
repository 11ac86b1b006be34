"""
Issues access tokens of the same form as Supabase Auth's, for a server without Supabase.

The key is ES256, Supabase's recommended algorithm, and its public half is published as a JWKS at the
same path, so that one verifying code serves both. Claims:
https://supabase.com/docs/guides/auth/jwt-fields.
"""

import base64
import hashlib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from s3edge.ports import Clock, Ids
from s3edge.rules.claims import AUDIENCE, USER_ROLE
from s3edge.values import Tier
from s3edge.web.http import Call, Response, Route
from s3edge_embedded.private_files import read_or_create


KEY_FILE = "token-key.pem"
JWKS_PATH = "/auth/v1/.well-known/jwks.json"

LOCAL_ISSUER = "urn:s3edge:local/auth/v1"
"""Not an address: tokens stay good when the server moves to another port. The key tells servers apart."""

DEFAULT_LIFETIME_S = 24 * 3600

_ALGORITHM = "ES256"
_JWKS_MAX_AGE_S = 600


class LocalIssuer:
    """
    Signs tokens with a key of its own, made on first use.

    Args:
        data_dir: Where the key is kept.
        clock: Tells the time.
        ids: Makes session ids.

    Raises:
        OSError: The key cannot be read or written.
        ValueError: The key file holds something else.
    """

    def __init__(self, data_dir: Path, clock: Clock, ids: Ids) -> None:
        pem = read_or_create(data_dir / KEY_FILE, _new_key)
        self._key = key = _load(pem, data_dir / KEY_FILE)
        self._clock = clock
        self._ids = ids
        self._jwk = _public_jwk(key)

    def issue(
        self, user_id: UUID, tier: Tier = Tier.FREE, lifetime_s: float = DEFAULT_LIFETIME_S
    ) -> str:
        """Return an access token of this user's."""
        now = self._clock.now()
        claims: dict[str, Any] = {
            "iss": LOCAL_ISSUER,
            "sub": str(user_id),
            "aud": AUDIENCE,
            "role": USER_ROLE,
            "iat": now,
            "exp": now + timedelta(seconds=lifetime_s),
            "aal": "aal1",
            "session_id": str(self._ids.new()),
            "email": "",
            "phone": "",
            "is_anonymous": False,
            "app_metadata": {"tier": tier.value},
            "user_metadata": {},
        }
        return jwt.encode(claims, self._key, _ALGORITHM, headers={"kid": self._jwk["kid"]})

    def jwks(self) -> bytes:
        """Return the public key as a JSON Web Key Set (RFC 7517)."""
        return msgspec.json.encode({"keys": [self._jwk]})

    async def fetch_jwks(self) -> bytes:
        """Return ``jwks()``, in the form that a key cache fetches it."""
        return self.jwks()

    def routes(self) -> Sequence[Route]:
        """Return the route that publishes the keys."""
        return [
            Route(
                "GET",
                JWKS_PATH,
                self._serve,
                "jwks",
                summary="The public keys of the local issuer",
                limits_anonymous=False,
            )
        ]

    async def _serve(self, call: Call) -> Response:  # noqa: ARG002 - a handler's signature
        headers = [
            ("content-type", "application/json"),
            ("cache-control", f"public, max-age={_JWKS_MAX_AGE_S}"),
        ]
        return Response(200, headers, self.jwks())


def _load(pem: bytes, path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        message = f"{path} does not hold an EC key; remove it to have one made"
        raise ValueError(message)  # noqa: TRY004 - the file is wrong, not a type
    return key


def _new_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _public_jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    # RFC 7638: the thumbprint of the required members names the key.
    members = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    digest = hashlib.sha256(msgspec.json.encode(members, order="sorted")).digest()
    kid = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return {**members, "kid": kid, "alg": _ALGORITHM, "use": "sig", "key_ops": ["verify"]}
