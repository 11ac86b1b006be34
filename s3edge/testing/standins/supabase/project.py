"""A project's keys, kept in a file so that they outlive the process that serves it."""

import os
import secrets
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from attrs import define, field

from s3edge.testing.standins.supabase.signing_keys import LEGACY, SigningKeys


_TEN_YEARS_S = 10 * 365 * 24 * 3600


@define
class Project:
    """
    A project.

    Attributes:
        publishable_key: ``sb_publishable_...``, for everybody.
        secret_key: ``sb_secret_...``, for servers.
        keys: What access tokens are signed with.
    """

    publishable_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    keys: SigningKeys

    @classmethod
    def create(cls) -> "Project":
        """Return a new one."""
        return cls(
            f"sb_publishable_{secrets.token_urlsafe(24)}",
            f"sb_secret_{secrets.token_urlsafe(24)}",
            SigningKeys.create(),
        )

    @classmethod
    def load(cls, file: Path) -> "Project":
        """Return the one that was saved in a file, or a new one."""
        if not file.exists():
            return cls.create()
        return msgspec.json.decode(file.read_bytes(), type=cls)

    def save(self, file: Path) -> None:
        """Write it to a file that nobody else may read."""
        half = file.with_name(file.name + ".new")
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(msgspec.json.encode(self))
        half.replace(file)

    def legacy_key(self, role: str) -> str:
        """Return the legacy API key of ``anon`` or ``service_role``: a token of the shared secret."""
        # The same each time, as it is shown once and copied into settings.
        issued_s = 1_700_000_000
        claims: dict[str, Any] = {
            "iss": "supabase",
            "ref": "standin",
            "role": role,
            "iat": issued_s,
            "exp": issued_s + _TEN_YEARS_S,
        }
        return self.keys.sign(claims, {}, LEGACY)

    def access_claims(self, url: str, user_id: str, lifetime_s: int) -> dict[str, Any]:
        """Return what Supabase Auth says of a user who has just signed in."""
        now_s = int(time.time())
        return {
            "iss": f"{url}/auth/v1",
            "sub": user_id,
            "aud": "authenticated",
            "exp": now_s + lifetime_s,
            "iat": now_s,
            "email": "",
            "phone": "",
            "app_metadata": {"provider": "email", "providers": ["email"]},
            "user_metadata": {},
            "role": "authenticated",
            "aal": "aal1",
            "amr": [{"method": "password", "timestamp": now_s}],
            "session_id": str(uuid4()),
            "is_anonymous": False,
        }
