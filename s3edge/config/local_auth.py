"""Puts the local issuer and the verifier of Supabase's tokens together."""

from collections.abc import Sequence

from attrs import frozen

from s3edge.ports import Wiring
from s3edge.values import User
from s3edge.web.http import Route
from s3edge_embedded.issuer import LOCAL_ISSUER, LocalIssuer
from s3edge_supabase.jwks import JwksCache
from s3edge_supabase.tokens import SupabaseAuthenticator


@frozen
class LocalAuthenticator:
    """
    The ``Authenticator`` port for tokens that this deployment issues itself.

    Attributes:
        issuer: Signs, and publishes its keys.
        verifier: Checks tokens by those keys, as it would Supabase's.
    """

    issuer: LocalIssuer
    verifier: SupabaseAuthenticator

    async def authenticate(self, token: str) -> User:
        """Implement ``Authenticator``."""
        return await self.verifier.authenticate(token)

    async def check(self) -> None:
        """Implement ``Checked``."""
        await self.verifier.check()

    def routes(self) -> Sequence[Route]:
        """Return the route that publishes the keys."""
        return self.issuer.routes()


def from_wiring(value: str, wiring: Wiring) -> LocalAuthenticator:  # noqa: ARG001 - the factories' signature
    """
    Return the authenticator of the ``local`` setting.

    Raises:
        OSError: The key cannot be read or written.
        ValueError: The key file holds something else.
    """
    issuer = LocalIssuer(wiring.data_dir, wiring.clock, wiring.ids)
    verifier = SupabaseAuthenticator(
        keys=JwksCache(issuer.fetch_jwks),
        issuer=LOCAL_ISSUER,
        clock=wiring.clock,
        tier_claim=wiring.tier_claim,
    )
    return LocalAuthenticator(issuer, verifier)
