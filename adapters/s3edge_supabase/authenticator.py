"""The ``Authenticator`` port for tokens of a Supabase project, by its published keys."""

import logging
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self

from attrs import define, field

from s3edge.errors import unavailable
from s3edge.ports import Clock, Finding, Wiring
from s3edge.rules.claims import LEEWAY_S
from s3edge.values import User
from s3edge_aiohttp import Answer, HttpClient, NoAnswerError
from s3edge_supabase.jwks import FETCH_TIMEOUT_S, JwksCache, parse_jwks
from s3edge_supabase.project import SupabaseProject, project_from_environment
from s3edge_supabase.tokens import PUBLIC_KEY_ALGORITHMS, SupabaseAuthenticator


KNOWN_ALGORITHMS = ("ES256", "RS256", "EdDSA")

ALGORITHMS_SETTING = "SUPABASE_JWT_ALGORITHMS"

_log = logging.getLogger(__name__)


@define
class HostedAuthenticator:
    """
    Verifies tokens by keys that are fetched from the project.

    Attributes:
        project: Where the keys are.
        clock: Tells when a token has expired.
        tier_claim: Path of the tier in the claims.
        algorithms: Which public-key algorithms are accepted.
    """

    project: SupabaseProject
    clock: Clock
    tier_claim: str
    algorithms: Sequence[str] = PUBLIC_KEY_ALGORITHMS
    _http: HttpClient = field(init=False)
    _verifier: SupabaseAuthenticator = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Put the parts together."""
        self._http = HttpClient("the sign-in service")
        self._verifier = SupabaseAuthenticator(
            keys=JwksCache(self._fetch_jwks),
            issuer=self.project.issuer,
            clock=self.clock,
            tier_claim=self.tier_claim,
            algorithms=self.algorithms,
            legacy_secret=self.project.jwt_secret,
        )

    async def __aenter__(self) -> Self:
        """Open the connections; no key is fetched yet."""
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._http.__aexit__(kind, error, trace)

    async def authenticate(self, token: str) -> User:
        """Implement ``Authenticator``."""
        return await self._verifier.authenticate(token)

    async def check(self) -> None:
        """Implement ``Checked``."""
        await self._verifier.check()

    async def examine(self) -> AsyncIterator[Finding]:
        """Implement ``Examinable``."""
        name = "signing keys"
        try:
            answer = await self._get_jwks()
        except NoAnswerError as error:
            yield Finding(name, ok=False, message=f"{error.reason}; compare SUPABASE_URL")
            return
        yield self._keys_finding(name, answer)
        yield self._skew_finding("clock", answer)
        yield Finding("issuer", ok=True, message=f"tokens must come from {self.project.issuer}")

    async def _get_jwks(self) -> Answer:
        return await self._http.fetch("GET", self.project.jwks_url, timeout_s=FETCH_TIMEOUT_S)

    async def _fetch_jwks(self) -> bytes:
        try:
            answer = await self._get_jwks()
        except NoAnswerError as error:
            raise unavailable(error.reason) from None
        if answer.status != 200:  # noqa: PLR2004 - OK
            raise unavailable(f"the sign-in service answered {answer.status}")
        return answer.body

    def _keys_finding(self, name: str, answer: Answer) -> Finding:
        if answer.status != 200:  # noqa: PLR2004 - OK
            message = f"status {answer.status}: SUPABASE_URL is not a Supabase project's"
            return Finding(name, ok=False, message=message)
        try:
            keys = parse_jwks(answer.body)
        except ValueError:
            message = "the answer is no key set: SUPABASE_URL is not a Supabase project's"
            return Finding(name, ok=False, message=message)
        usable = [key for key in keys.values() if key.algorithm_name in self.algorithms]
        if not usable and self.project.jwt_secret is not None:
            return Finding(name, ok=True, message="none; the legacy secret verifies tokens")
        if not keys:
            message = (
                "the project publishes none, so it signs with the legacy secret: set"
                " SUPABASE_JWT_SECRET, or change to signing keys in the project's settings"
            )
            return Finding(name, ok=False, message=message)
        if not usable:
            message = f"none is for {', '.join(self.algorithms)}: set {ALGORITHMS_SETTING}"
            return Finding(name, ok=False, message=message)
        algorithms = ", ".join(sorted({key.algorithm_name for key in usable}))
        return Finding(name, ok=True, message=f"{len(usable)} published, for {algorithms}")

    def _skew_finding(self, name: str, answer: Answer) -> Finding:
        """Compare this machine's clock with the server's (``Date``, RFC 9110, section 6.6.1)."""
        try:
            theirs = parsedate_to_datetime(answer.headers.get("date", ""))
        except ValueError:
            return Finding(name, ok=True, message="cannot be compared: the answer has no date")
        skew_s = _seconds_between(self.clock.now(), theirs)
        if abs(skew_s) > LEEWAY_S:
            side = "ahead" if skew_s > 0 else "behind"
            message = f"this machine is {abs(skew_s):.0f} s {side}: have it set its clock (NTP)"
            return Finding(name, ok=False, message=message)
        return Finding(name, ok=True, message=f"{skew_s:+.0f} s")


def from_wiring(value: str, wiring: Wiring) -> HostedAuthenticator:  # noqa: ARG001 - the factories' signature
    """
    Return the authenticator of the ``supabase`` setting.

    Raises:
        ValueError: A ``SUPABASE_*`` setting is missing or malformed.
    """
    return HostedAuthenticator(
        project_from_environment(wiring.vendor, needs_key=False),
        wiring.clock,
        wiring.tier_claim,
        _algorithms(wiring.vendor.get(ALGORITHMS_SETTING, "")),
    )


def _algorithms(text: str) -> Sequence[str]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [name for name in names if name not in KNOWN_ALGORITHMS]
    if unknown:
        message = (
            f"{ALGORITHMS_SETTING}: write a comma-separated list of {', '.join(KNOWN_ALGORITHMS)}"
        )
        raise ValueError(message)
    return names or PUBLIC_KEY_ALGORITHMS


def _seconds_between(ours: datetime, theirs: datetime) -> float:
    return (ours - theirs.astimezone(ours.tzinfo)).total_seconds()
