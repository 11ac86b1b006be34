"""Only tokens that the issuer signed, for us, now, are anybody's."""

import base64
import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from s3edge.errors import Code, EdgeError
from s3edge.testing import ManualClock
from s3edge.values import Tier, User
from s3edge_supabase.jwks import JwksCache
from s3edge_supabase.tokens import SupabaseAuthenticator
from s3edge_supabase.verified import MAX_TOKENS, VerifiedTokens


pytestmark = pytest.mark.anyio

ISSUER = "https://project.supabase.co/auth/v1"
SECRET = "a shared secret that is long enough"
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
USER_ID = UUID("00000000-0000-4000-8000-00000000a11c")

Claims = dict[str, Any]


def jwks() -> bytes:
    """Return the issuer's public keys."""
    ec_jwk = ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True)
    rsa_jwk = RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True)
    return msgspec.json.encode(
        {"keys": [{**ec_jwk, "kid": "ec", "alg": "ES256"}, {**rsa_jwk, "kid": "rsa"}]}
    )


async def fetch() -> bytes:
    """Answer as the issuer does."""
    return jwks()


@pytest.fixture
def clock() -> ManualClock:
    """Stand still."""
    return ManualClock()


@pytest.fixture
def authenticator(clock: ManualClock) -> SupabaseAuthenticator:
    """Verify by public keys only."""
    return SupabaseAuthenticator(JwksCache(fetch), ISSUER, clock)


@pytest.fixture
def claims(clock: ManualClock) -> Claims:
    """Return the claims of a good token."""
    now = int(clock.now().timestamp())
    return {
        "iss": ISSUER,
        "sub": str(USER_ID),
        "aud": "authenticated",
        "role": "authenticated",
        "iat": now,
        "exp": now + 3600,
        "app_metadata": {"tier": "pro"},
        "user_metadata": {"tier": "enterprise"},
    }


def sign(claims: Claims, **changes: Any) -> str:
    """Return a token of the issuer's; ``None`` leaves a claim out."""
    changed = {name: value for name, value in (claims | changes).items() if value is not None}
    return jwt.encode(changed, EC_KEY, "ES256", headers={"kid": "ec"})


async def code_of(authenticator: SupabaseAuthenticator, token: str) -> Code:
    """Return why a token is refused."""
    with pytest.raises(EdgeError) as caught:
        await authenticator.authenticate(token)
    assert token[-20:] not in str(caught.value)
    return caught.value.code


async def test_a_good_token_names_its_user(
    authenticator: SupabaseAuthenticator, claims: Claims
) -> None:
    """The tier is the operator's, not what the user wrote; the token is passed on and not shown."""
    token = sign(claims)
    user = await authenticator.authenticate(token)
    assert (user.user_id, user.tier, user.jwt) == (USER_ID, Tier.PRO, token)
    assert not user.is_anonymous
    assert token not in repr(user)


async def test_rsa_signatures_are_as_good(
    authenticator: SupabaseAuthenticator, claims: Claims
) -> None:
    """RS256 is the other algorithm that projects sign with."""
    token = jwt.encode(claims, RSA_KEY, "RS256", headers={"kid": "rsa"})
    assert (await authenticator.authenticate(token)).user_id == USER_ID


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": None},
        {"iat": None},
        {"exp": "tomorrow"},
        {"exp": True},
        {"exp": float("1e300")},
        {"exp": -1},
        {"aud": "anon"},
        {"aud": None},
        {"aud": ["other"]},
        {"aud": {"authenticated": 1}},
        {"iss": ISSUER + "/"},
        {"iss": "https://evil.example/auth/v1"},
        {"iss": None},
        {"sub": "root"},
        {"sub": None},
        {"sub": 5},
        {"sub": "{" + str(USER_ID) + "}"},
    ],
    ids=str,
)
async def test_a_token_with_a_wrong_claim_is_invalid(
    authenticator: SupabaseAuthenticator, claims: Claims, changes: Claims
) -> None:
    """Times, audience, issuer and subject are all required to be right."""
    assert await code_of(authenticator, sign(claims, **changes)) is Code.AUTH_INVALID


async def test_times_have_thirty_seconds_of_leeway(
    authenticator: SupabaseAuthenticator, claims: Claims, clock: ManualClock
) -> None:
    """29 seconds off is the clocks' fault, 31 is the token's."""
    now = int(clock.now().timestamp())
    for changes in ({"exp": now - 29}, {"iat": now + 29}, {"nbf": now + 29}):
        assert (await authenticator.authenticate(sign(claims, **changes))).user_id == USER_ID
    for changes in ({"exp": now - 31}, {"iat": now + 31}, {"nbf": now + 31}):
        assert await code_of(authenticator, sign(claims, **changes)) is Code.AUTH_INVALID


@pytest.mark.parametrize("role", ["anon", "service_role", "", None, 1])
async def test_a_key_of_the_project_is_no_user(
    authenticator: SupabaseAuthenticator, claims: Claims, role: object
) -> None:
    """A valid token of another role is forbidden, also without audience and subject."""
    token = sign(claims, role=role, aud=None, sub=None, iss="supabase")
    assert await code_of(authenticator, token) is Code.FORBIDDEN


async def test_anonymous_users_are_known_as_such(
    authenticator: SupabaseAuthenticator, claims: Claims
) -> None:
    """They are signed in without an identity."""
    assert (await authenticator.authenticate(sign(claims, is_anonymous=True))).is_anonymous


def segment(value: object) -> str:
    """Return one part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def test_forged_tokens_are_invalid(
    authenticator: SupabaseAuthenticator, claims: Claims
) -> None:
    """No signature, another key, a public key as a shared secret, a key in the header: all refused."""
    public_pem = EC_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    own_jwk = ECAlgorithm.to_jwk(OTHER_KEY.public_key(), as_dict=True)
    good = sign(claims)
    head, body, signature = good.split(".")
    forged = [
        f"{segment({'alg': 'none', 'kid': 'ec'})}.{body}.",
        f"{segment({'alg': 'None'})}.{body}.{signature}",
        f"{head}.{segment(claims | {'sub': str(uuid4())})}.{signature}",
        f"{head}.{body}.",
        jwt.encode(claims, OTHER_KEY, "ES256", headers={"kid": "ec"}),
        jwt.encode(claims, OTHER_KEY, "ES256", headers={"kid": "other"}),
        jwt.encode(claims, OTHER_KEY, "ES256", headers={"kid": "ec", "jwk": own_jwk}),
        jwt.encode(claims, SECRET, "HS256", headers={"kid": "ec"}),
        hs256_with(public_pem, body),
        jwt.encode(claims, RSA_KEY, "RS512", headers={"kid": "rsa"}),
        jwt.encode(claims, RSA_KEY, "RS256", headers={"kid": "ec"}),
        good + "x" * 10_000,
        "a.b.c",
        "é.é.é",
        "..",
    ]
    for token in forged:
        assert await code_of(authenticator, token) is Code.AUTH_INVALID, token[:60]


def hs256_with(secret: bytes, body: str) -> str:
    """Return a token signed with any bytes; PyJWT itself refuses to sign with a public key."""
    signed = f"{segment({'alg': 'HS256', 'kid': 'ec', 'typ': 'JWT'})}.{body}"
    digest = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


async def test_the_shared_secret_counts_only_when_it_is_set(
    claims: Claims, clock: ManualClock
) -> None:
    """Legacy HS256 is accepted by setting; public keys go on to work beside it."""
    legacy = SupabaseAuthenticator(JwksCache(fetch), ISSUER, clock, legacy_secret=SECRET)
    token = jwt.encode(claims, SECRET, "HS256")
    assert (await legacy.authenticate(token)).user_id == USER_ID
    assert (await legacy.authenticate(sign(claims))).user_id == USER_ID
    wrong = jwt.encode(claims, SECRET + "!", "HS256")
    assert await code_of(legacy, wrong) is Code.AUTH_INVALID
    assert SECRET not in repr(legacy)


async def test_a_verified_token_is_not_verified_again_for_a_minute(
    claims: Claims, clock: ManualClock
) -> None:
    """Polls cost no signature; a key that was withdrawn counts after a minute at the most."""
    authenticator = SupabaseAuthenticator(JwksCache(fetch), ISSUER, clock)
    token = sign(claims)
    first = await authenticator.authenticate(token)
    assert await authenticator.authenticate(token) is first
    clock.advance(61)
    assert await authenticator.authenticate(token) is not first


def test_a_verified_token_is_forgotten_when_it_expires() -> None:
    """However young the memory of it is."""
    clock = ManualClock()
    tokens = VerifiedTokens()
    user = User(UUID(int=1))
    tokens.add("t", user, clock.now(), clock.now() + timedelta(seconds=10))
    assert tokens.get("t", clock.now()) is user
    clock.advance(10)
    assert tokens.get("t", clock.now()) is None


def test_the_memory_of_tokens_is_bounded() -> None:
    """The longest unseen are forgotten first."""
    clock = ManualClock()
    tokens = VerifiedTokens()
    user, later = User(UUID(int=1)), clock.now() + timedelta(seconds=60)
    tokens.add("first", user, clock.now(), later)
    tokens.add("second", user, clock.now(), later)
    assert tokens.get("first", clock.now()) is user
    for number in range(MAX_TOKENS - 1):
        tokens.add(str(number), user, clock.now(), later)
    assert tokens.get("second", clock.now()) is None
    assert tokens.get("first", clock.now()) is user
