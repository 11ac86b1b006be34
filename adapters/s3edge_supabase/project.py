"""Where a Supabase project is, and which key goes with which call."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from attrs import field, frozen


SECRET_PREFIX = "sb_secret_"  # noqa: S105 - what every secret key begins with
PUBLISHABLE_PREFIX = "sb_publishable_"

MIN_SECRET_CHARACTERS = 32
"""RFC 7518, section 3.2: a key of HS256 has 256 bits at least."""

_URL = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


@frozen
class SupabaseProject:
    """
    A project.

    Keys go in the ``apikey`` header; a legacy key is a JWT and goes into ``Authorization`` as well. A
    user's token and the service key never travel together: the token's rights would count, not the
    key's. https://supabase.com/docs/guides/api/api-keys

    Attributes:
        url: Without a trailing slash.
        publishable_key: ``sb_publishable_...`` or the legacy ``anon`` key.
        service_key: ``sb_secret_...`` or the legacy ``service_role`` key; ``None`` without it.
        jwt_secret: The legacy shared secret; ``None`` when tokens are signed by key pairs.
    """

    url: str
    publishable_key: str = field(repr=False)
    service_key: str | None = field(default=None, repr=False)
    jwt_secret: str | None = field(default=None, repr=False)

    @property
    def issuer(self) -> str:
        """The ``iss`` of its access tokens."""
        return f"{self.url}/auth/v1"

    @property
    def jwks_url(self) -> str:
        """Where its public keys are."""
        return f"{self.issuer}/.well-known/jwks.json"

    def public_headers(self) -> Mapping[str, str]:
        """Return the headers of a call for nobody in particular: the ``anon`` role."""
        return _key_headers(self.publishable_key)

    def user_headers(self, token: str) -> Mapping[str, str]:
        """Return the headers of a call on behalf of a user: row-level security applies."""
        return {"apikey": self.publishable_key, "Authorization": f"Bearer {token}"}

    def service_headers(self) -> Mapping[str, str]:
        """
        Return the headers of a call that no user makes: the ``service_role``.

        Raises:
            LookupError: There is no service key.
        """
        if self.service_key is None:
            raise LookupError("SUPABASE_SERVICE_ROLE_KEY")
        return _key_headers(self.service_key)


def project_from_environment(
    vendor: Mapping[str, str], *, needs_key: bool = True
) -> SupabaseProject:
    """
    Return the project that the ``SUPABASE_*`` settings name.

    Args:
        vendor: The settings.
        needs_key: Whether more than the project's public keys will be asked of it.

    Raises:
        ValueError: Names the setting and says what to do.
    """
    url = vendor.get("SUPABASE_URL", "").strip().rstrip("/")
    if not _URL.fullmatch(url):
        raise ValueError("set SUPABASE_URL to the project's URL, as https://<ref>.supabase.co")
    publishable = _key(vendor, "SUPABASE_ANON_KEY")
    if needs_key and not publishable:
        raise ValueError(
            "set SUPABASE_ANON_KEY to the project's publishable key (sb_publishable_... or anon)"
        )
    if publishable.startswith(SECRET_PREFIX) or role_of(publishable) == "service_role":
        raise ValueError("SUPABASE_ANON_KEY holds a secret key; put the publishable one there")
    service = _key(vendor, "SUPABASE_SERVICE_ROLE_KEY")
    if service.startswith(PUBLISHABLE_PREFIX) or role_of(service) not in {None, "service_role"}:
        raise ValueError(
            "SUPABASE_SERVICE_ROLE_KEY holds a publishable key; put the secret one there"
        )
    secret = vendor.get("SUPABASE_JWT_SECRET", "").strip()
    if 0 < len(secret) < MIN_SECRET_CHARACTERS or (secret and secret in {publishable, service}):
        raise ValueError(
            "SUPABASE_JWT_SECRET is not the project's legacy JWT secret; copy it from its settings"
        )
    return SupabaseProject(url, publishable, service or None, secret or None)


def role_of(key: str) -> str | None:
    """Return the role that a legacy key names; ``None`` for the new, opaque kind."""
    return _claim(key, "role")


def project_ref_of(key: str) -> str | None:
    """Return the project that a legacy key names; ``None`` for the new, opaque kind."""
    return _claim(key, "ref")


def _key(vendor: Mapping[str, str], name: str) -> str:
    key = vendor.get(name, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        message = f"{name} holds characters that no key has; copy it again"
        raise ValueError(message)
    return key


def _claim(key: str, name: str) -> str | None:
    parts = key.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, claims, signature
        return None
    try:
        claims: Any = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=="))
    except (binascii.Error, ValueError, RecursionError):
        return None
    value = claims.get(name) if isinstance(claims, dict) else None
    return value if isinstance(value, str) else None


def _key_headers(key: str) -> Mapping[str, str]:
    headers = {"apikey": key}
    if role_of(key) is not None:
        headers["Authorization"] = f"Bearer {key}"
    return headers
