"""Tokens of a hosted project: what is fetched, and what the doctor finds."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import uuid4

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from s3edge.errors import Code, EdgeError
from s3edge.gateway import RandomIds
from s3edge.ports import Finding, Wiring
from s3edge.testing import ManualClock
from s3edge_aiohttp import Answer, HttpClient, NoAnswerError
from s3edge_supabase.authenticator import HostedAuthenticator, from_wiring
from s3edge_supabase.jwks import FETCH_TIMEOUT_S
from s3edge_supabase.project import SupabaseProject


pytestmark = pytest.mark.anyio

URL = "https://abcd.supabase.co"
SECRET = "a shared secret of the project, long enough"

EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()

EC_JWK = {
    **ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True),
    "kid": "ec",
    "alg": "ES256",
    "use": "sig",
}
ED_JWK = {
    **OKPAlgorithm.to_jwk(ED_KEY.public_key(), as_dict=True),
    "kid": "ed",
    "alg": "EdDSA",
    "use": "sig",
}


class Published(HttpClient):
    """Answers what a test says when the keys are fetched."""

    def __init__(self, answer: Answer | Exception) -> None:
        super().__init__("the sign-in service")
        self.answer = answer

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Answer the one request that is right."""
        assert (method, url) == ("GET", f"{URL}/auth/v1/.well-known/jwks.json")
        assert timeout_s == FETCH_TIMEOUT_S
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock that stands still."""
    return ManualClock()


def keys(*jwks: dict[str, Any], date: datetime | None = None, status: int = 200) -> Answer:
    """Return a set of published keys."""
    headers = {} if date is None else {"date": format_datetime(date)}
    return Answer(status, headers, msgspec.json.encode({"keys": list(jwks)}))


def hosted(clock: ManualClock, answer: Answer | Exception, **vendor: str) -> HostedAuthenticator:
    """Return an authenticator whose project publishes this."""
    wiring = Wiring(
        data_dir=None,  # type: ignore[arg-type] # not used
        public_url="",
        clock=clock,
        ids=RandomIds(),
        initial_credits=100,
        segment_cost=1,
        task_deadline_s=900,
        tier_claim="app_metadata.tier",
        vendor={"SUPABASE_URL": URL, **vendor},
    )
    authenticator = from_wiring("supabase", wiring)
    authenticator._http = Published(answer)
    return authenticator


def token(clock: ManualClock, key: Any, algorithm: str, kid: str | None, **changes: Any) -> str:
    """Return a user's token."""
    now = clock.now()
    claims = {
        "sub": str(uuid4()),
        "role": "authenticated",
        "aud": "authenticated",
        "iss": f"{URL}/auth/v1",
        "iat": now,
        "exp": now + timedelta(hours=1),
        "is_anonymous": False,
        **changes,
    }
    return jwt.encode(claims, key, algorithm, headers={} if kid is None else {"kid": kid})


async def findings(authenticator: HostedAuthenticator) -> dict[str, Finding]:
    """Return what the doctor finds, by name."""
    return {finding.name: finding async for finding in authenticator.examine()}


async def test_a_token_is_verified_by_the_published_key(clock: ManualClock) -> None:
    """The user, the tier and whether somebody signed in anonymously come from the claims."""
    authenticator = hosted(clock, keys(EC_JWK))
    made = token(clock, EC_KEY, "ES256", "ec", app_metadata={"tier": "pro"}, is_anonymous=True)
    user = await authenticator.authenticate(made)
    assert (user.tier.value, user.is_anonymous, user.jwt) == ("pro", True, made)


async def test_a_tier_that_users_write_changes_nothing(clock: ManualClock) -> None:
    """``user_metadata`` is the user's own to write."""
    authenticator = hosted(clock, keys(EC_JWK))
    made = token(clock, EC_KEY, "ES256", "ec", user_metadata={"tier": "enterprise"})
    assert (await authenticator.authenticate(made)).tier.value == "free"


async def test_eddsa_is_accepted_by_setting_only(clock: ManualClock) -> None:
    """Supabase announces it; who has it switches it on."""
    made = token(clock, ED_KEY, "EdDSA", "ed")
    with pytest.raises(EdgeError) as caught:
        await hosted(clock, keys(EC_JWK, ED_JWK)).authenticate(made)
    assert caught.value.code is Code.AUTH_INVALID
    accepting = hosted(clock, keys(EC_JWK, ED_JWK), SUPABASE_JWT_ALGORITHMS="ES256, EdDSA")
    assert (await accepting.authenticate(made)).jwt == made


async def test_the_legacy_secret_is_used_when_it_is_set(clock: ManualClock) -> None:
    """Then a project without published keys is whole; without it that is an outage."""
    made = token(clock, SECRET, "HS256", None)
    authenticator = hosted(clock, keys(), SUPABASE_JWT_SECRET=SECRET)
    assert (await authenticator.authenticate(made)).jwt == made
    await authenticator.check()
    with pytest.raises(EdgeError) as caught:
        await hosted(clock, keys()).authenticate(made)
    assert caught.value.code is Code.AUTH_INVALID
    with pytest.raises(EdgeError, match="publishes no keys"):
        await hosted(clock, keys()).check()


async def test_a_published_key_never_verifies_hs256(clock: ManualClock) -> None:
    """A public key is no secret, whoever signs with it."""
    # PyJWT does not sign with a whole JWK; what the key is made of is just as public.
    made = token(clock, EC_JWK["x"], "HS256", "ec")
    for vendor in ({}, {"SUPABASE_JWT_SECRET": SECRET}):
        with pytest.raises(EdgeError) as caught:
            await hosted(clock, keys(EC_JWK), **vendor).authenticate(made)
        assert caught.value.code is Code.AUTH_INVALID


@pytest.mark.parametrize(
    "answer",
    [
        NoAnswerError("the sign-in service cannot be connected to", may_have_acted=False),
        keys(EC_JWK, status=500),
        Answer(200, {}, b"<html>"),
    ],
    ids=["refused", "500", "garbage"],
)
async def test_an_outage_is_no_bad_token(clock: ManualClock, answer: Answer | Exception) -> None:
    """Whoever signs in is told to come back, not to sign in again."""
    made = token(clock, EC_KEY, "ES256", "ec")
    with pytest.raises(EdgeError) as caught:
        await hosted(clock, answer).authenticate(made)
    assert caught.value.code is Code.SERVICE_UNAVAILABLE


@pytest.mark.parametrize(
    ("answer", "vendor", "name", "says"),
    [
        (
            NoAnswerError("x cannot be connected to", may_have_acted=False),
            {},
            "signing keys",
            "compare SUPABASE_URL",
        ),
        (keys(status=404), {}, "signing keys", "not a Supabase project's"),
        (Answer(200, {}, b"<html>"), {}, "signing keys", "not a Supabase project's"),
        (keys(), {}, "signing keys", "set SUPABASE_JWT_SECRET"),
        (keys(ED_JWK), {}, "signing keys", "set SUPABASE_JWT_ALGORITHMS"),
        (keys(EC_JWK, date=datetime(2001, 1, 1, tzinfo=UTC)), {}, "clock", "have it set its clock"),
    ],
)
async def test_the_doctor_says_what_is_wrong(
    clock: ManualClock, answer: Answer | Exception, vendor: dict[str, str], name: str, says: str
) -> None:
    """Each fault has its line and its fix."""
    found = (await findings(hosted(clock, answer, **vendor)))[name]
    assert not found.ok
    assert says in found.message


async def test_the_doctor_says_what_is_right(clock: ManualClock) -> None:
    """Keys, clock and issuer; or the legacy secret in their place."""
    whole = await findings(hosted(clock, keys(EC_JWK, date=clock.now())))
    assert {finding.name: finding.ok for finding in whole.values()} == {
        "signing keys": True,
        "clock": True,
        "issuer": True,
    }
    legacy = await findings(hosted(clock, keys(), SUPABASE_JWT_SECRET=SECRET))
    assert legacy["signing keys"].ok


def test_an_unknown_algorithm_stops_the_start(clock: ManualClock) -> None:
    """HS256 is switched on by its secret, and ``none`` by nothing."""
    for text in ("HS256", "none", "ES256;RS256"):
        with pytest.raises(ValueError, match="SUPABASE_JWT_ALGORITHMS"):
            hosted(clock, keys(), SUPABASE_JWT_ALGORITHMS=text)


def test_nothing_secret_is_in_the_representation(clock: ManualClock) -> None:
    """Whatever prints it shows no key."""
    project = SupabaseProject(URL, "sb_publishable_x", "sb_secret_hunter2", "hunter2")
    assert "hunter2" not in repr(HostedAuthenticator(project, clock, "app_metadata.tier"))
