"""
Verifies tokens as PostgREST does.

https://docs.postgrest.org/en/v14/references/auth.html
"""

import base64
import binascii
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
import msgspec

from s3edge.testing.standins.supabase.refusals import Refusal
from s3edge.testing.standins.supabase.signing_keys import SigningKeys


SKEW_S = 30
"""How far clocks may differ."""

AUDIENCE = "authenticated"

_ALGORITHMS = {"HS256": "oct", "ES256": "EC", "RS256": "RSA"}

Claims = Mapping[str, Any]


def issued_in_future() -> Refusal:
    """Return the refusal of a token that is too new, which live projects give at times."""
    return _bad_claims("JWT issued at future")


def verified(token: str, keys: SigningKeys) -> Claims:
    """
    Return what a token says.

    Raises:
        Refusal: It proves nothing (``PGRST301``), or not now or not here (``PGRST303``).
    """
    claims = _decoded(token, keys)
    now_s = int(time.time())
    expires_s, begins_s, issued_s = (_time(claims, name) for name in ("exp", "nbf", "iat"))
    if expires_s is not None and now_s - SKEW_S > expires_s:
        raise _bad_claims("JWT expired")
    if begins_s is not None and now_s + SKEW_S < begins_s:
        raise _bad_claims("JWT not yet valid")
    if issued_s is not None and now_s + SKEW_S < issued_s:
        raise issued_in_future()
    _check_audience(claims.get("aud"))
    return claims


def _decoded(token: str, keys: SigningKeys) -> Claims:
    """Return the claims of a token whose signature is a trusted key's."""
    if not token:
        raise _undecodable("Empty JWT is sent in Authorization header")
    parts = token.split(".")
    if len(parts) != 3:
        raise _undecodable(f"Expected 3 parts in JWT; got {len(parts)}")
    header = _header(parts[0])
    algorithm = header.get("alg")
    if algorithm not in _ALGORITHMS:
        raise _undecodable(
            "Wrong or unsupported encoding algorithm",
            "JWT is unsecured but expected 'alg' was not 'none'" if algorithm == "none" else None,
        )
    candidates = _candidates(keys, algorithm, header.get("kid"))
    if not candidates:
        raise _no_key("No suitable key was found to decode the JWT")
    for key in candidates:
        try:
            payload = jwt.api_jws.decode(token, key, algorithms=[algorithm])
        except jwt.PyJWTError:
            continue
        return _claims(payload)
    raise _no_key("None of the keys was able to decode the JWT")


def _header(part: str) -> Mapping[str, Any]:
    try:
        header = msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error):
        header = None
    if not isinstance(header, dict):
        raise _undecodable("JWT couldn't be decoded")
    return header


def _candidates(keys: SigningKeys, algorithm: str, kid: object) -> Sequence[Any]:
    """Return the keys that could have signed; a token's key id, if it has one, picks one."""
    if algorithm == "HS256":
        return [] if keys.legacy_revoked or kid is not None else [keys.jwt_secret]
    return [
        jwt.PyJWK(dict(key.public_jwk())).key
        for key in keys.trusted()
        if key.algorithm == algorithm and kid in {None, key.kid}
    ]


def _claims(payload: bytes) -> Claims:
    try:
        claims = msgspec.json.decode(payload)
    except ValueError:
        claims = None
    if not isinstance(claims, dict):
        raise _bad_claims("Parsing claims failed")
    return claims


def _time(claims: Claims, name: str) -> int | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _bad_claims(f"The JWT '{name}' claim must be a number")
    return int(value)


def _check_audience(audience: object) -> None:
    """Accept a token for us, and one that is for nobody in particular, as legacy keys are."""
    match audience:
        case None:
            return
        case str():
            named: Sequence[object] = [audience]
        case list() if all(isinstance(each, str) for each in audience):
            named = audience
        case _:
            raise _bad_claims("The JWT 'aud' claim must be a string or an array of strings")
    if named and AUDIENCE not in named:
        raise _bad_claims("JWT not in audience")


def _undecodable(message: str, details: str | None = None) -> Refusal:
    return _refusal("PGRST301", message, details)


def _no_key(details: str) -> Refusal:
    return _undecodable("No suitable key or wrong key type", details)


def _bad_claims(message: str) -> Refusal:
    return _refusal("PGRST303", message)


def _refusal(code: str, message: str, details: str | None = None) -> Refusal:
    described = msgspec.json.encode(message).decode()
    return Refusal(
        401,
        code,
        message,
        details=details,
        headers={
            "WWW-Authenticate": f'Bearer error="invalid_token", error_description={described}'
        },
    )
