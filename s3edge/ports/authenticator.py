"""Tells who a bearer token belongs to."""

from typing import Protocol

from s3edge.ports.checked import Checked
from s3edge.values import User


class Authenticator(Checked, Protocol):
    """Tells who a bearer token belongs to."""

    async def authenticate(self, token: str) -> User:
        """
        Verify a token and return its user.

        It is called on the event loop, for each request: what blocks there holds up everybody, and
        belongs into a thread (``asyncio.to_thread``).

        Callers guarantee:
            ``token`` is what followed ``Bearer``, not empty.

        Implementations must:
            Return the token's user and tier (``test_a_valid_token_names_its_user``).
            Refuse what is not a token (``test_garbage_is_refused``).
            Refuse a token whose signature was changed (``test_a_tampered_token_is_refused``).
            Refuse a token after its time (``test_an_expired_token_is_refused``).

        Raises:
            EdgeError: ``AUTH_INVALID`` for a token that proves nothing, ``FORBIDDEN`` for a valid one
                without the right, ``SERVICE_UNAVAILABLE`` when it cannot be told.
        """
