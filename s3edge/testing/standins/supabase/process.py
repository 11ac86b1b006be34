"""The stand-in as a process of its own, for tests."""

import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from uuid import UUID

import httpx

from s3edge.testing.standins.postgres import Database


STOP_TIMEOUT_S = 30

_SERVING = re.compile(r"Serving at (http://\S+)")


class SupabaseProcess:
    """
    A Supabase project: one server process in front of a database, for use as a context manager.

    The keys and the address stay the same when it is stopped and started again.

    Args:
        folder: Where it keeps its keys and its log.
        database: What it serves.

    Attributes:
        url: The project's, without a trailing slash.
        log: What it wrote to standard error.
        anon_key: ``sb_publishable_...``.
        service_key: ``sb_secret_...``.
        legacy_anon_key: The ``anon`` key in its older form, a token.
        legacy_service_key: The ``service_role`` key in its older form.
        jwt_secret: The legacy shared secret.
    """

    def __init__(self, folder: Path, database: Database) -> None:
        self.url = ""
        self.log = folder / "supabase.log"
        self.anon_key = ""
        self.service_key = ""
        self.legacy_anon_key = ""
        self.legacy_service_key = ""
        self.jwt_secret = ""
        self._file = folder / "supabase.json"
        self._database = database
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._control = httpx.Client(timeout=STOP_TIMEOUT_S)

    def __enter__(self) -> Self:
        """
        Start it.

        Raises:
            RuntimeError: It did not start; the message holds its log.
        """
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.close()

    @property
    def pid(self) -> int:
        """
        The process's id.

        Raises:
            RuntimeError: It does not run.
        """
        if self._process is None:
            raise RuntimeError("the stand-in does not run")
        return self._process.pid

    def start(self) -> None:
        """
        Start it, where it was before if it was, and return when it answers.

        Raises:
            RuntimeError: It did not start; the message holds its log.
        """
        port = self.url.rpartition(":")[2] or "0"
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [
                *(sys.executable, "-m", "s3edge.testing.standins.supabase"),
                *("--database-url", self._database.url("authenticator")),
                *("--auth-database-url", self._database.url("supabase_auth_admin")),
                *("--project", str(self._file), "--port", port, "--until-input-ends"),
            ],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines = self._process.stderr
        assert lines is not None
        self.url = self._announced(lines)
        # Somebody must read on, or the pipe fills and the server stands still.
        self._reader = threading.Thread(target=self._keep_log, args=(lines,))
        self._reader.start()
        project = self._ask("GET", "project")
        self.anon_key = project["publishable_key"]
        self.service_key = project["secret_key"]
        self.legacy_anon_key = project["legacy_anon_key"]
        self.legacy_service_key = project["legacy_service_key"]
        self.jwt_secret = project["jwt_secret"]

    def stop(self) -> None:
        """Stop it, and keep its keys; requests are then refused by nobody: nothing listens."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stderr is not None
        process.terminate()
        process.wait(STOP_TIMEOUT_S)
        process.stdin.close()
        if self._reader is not None:
            self._reader.join()
            self._reader = None
        process.stderr.close()

    def close(self) -> None:
        """Stop it for good."""
        self.stop()
        self._control.close()

    def sign(
        self,
        user_id: UUID | str | None = None,
        *,
        lifetime_s: int = 3600,
        claims: Mapping[str, Any] | None = None,
        header: Mapping[str, Any] | None = None,
        key: str = "in_use",
    ) -> str:
        """
        Return an access token, as Supabase Auth issues them.

        Args:
            user_id: Whose it is; by default somebody new, who is in no table.
            lifetime_s: How long it is good for; negative for one that has expired.
            claims: Replace the usual ones, such as ``{"app_metadata": {"tier": "pro"}}``; ``None``
                leaves one out.
            header: Replaces fields of the header, such as ``{"kid": None}`` or ``{"alg": "none"}``.
            key: ``in_use``, ``standby``, ``previously_used``, ``revoked``, ``legacy`` or ``foreign``.

        Raises:
            RuntimeError: There is no such key.
        """
        wanted = {
            "user_id": None if user_id is None else str(user_id),
            "lifetime_s": lifetime_s,
            "claims": dict(claims or {}),
            "header": dict(header or {}),
            "key": key,
        }
        token: str = self._ask("POST", "tokens", wanted)["token"]
        return token

    def sign_up(
        self,
        user_id: UUID | None = None,
        *,
        email: str | None = None,
        is_anonymous: bool = False,
        app_metadata: Mapping[str, Any] | None = None,
        user_metadata: Mapping[str, Any] | None = None,
    ) -> UUID:
        """
        Make a user as Supabase Auth does, so that triggers on ``auth.users`` run.

        Raises:
            RuntimeError: The database refused; the message says why.
        """
        wanted = {
            "id": None if user_id is None else str(user_id),
            "email": email,
            "is_anonymous": is_anonymous,
            "app_metadata": dict(app_metadata or {}),
            "user_metadata": dict(user_metadata or {}),
        }
        return UUID(self._ask("POST", "users", wanted)["id"])

    def rotate(self) -> None:
        """Bring the standby key in use; the old one stays trusted."""
        self._ask("POST", "keys/rotate")

    def revoke(self) -> None:
        """Trust no previously used key any more."""
        self._ask("POST", "keys/revoke")

    def set_legacy(self, *, signs: bool | None = None, revoked: bool | None = None) -> None:
        """
        Change what becomes of the legacy shared secret.

        Args:
            signs: Whether tokens are signed with it, and no key is published.
            revoked: Whether it is not trusted any more, and the legacy API keys with it.
        """
        self._ask("POST", "keys/legacy", {"signs": signs, "revoked": revoked})

    def refuse_as_issued_in_future(self, count: int) -> None:
        """Answer the next requests with 401 ``JWT issued at future``, as live projects do at times."""
        self._ask("POST", "faults", {"issued_in_future": count})

    def requests(self) -> Mapping[str, int]:
        """Return how often what was asked, as ``GET /rest/v1/table``, since the last reset."""
        counted: Mapping[str, int] = self._ask("GET", "requests")
        return counted

    def forget_requests(self) -> None:
        """Count anew."""
        self._ask("DELETE", "requests")

    def _ask(self, method: str, path: str, content: Mapping[str, Any] | None = None) -> Any:
        answer = self._control.request(method, f"{self.url}/_control/{path}", json=content)
        if answer.is_error:
            raise RuntimeError(answer.text)
        return answer.json() if answer.content else None

    def _announced(self, lines: IO[str]) -> str:
        """Return the address in what it prints when it starts."""
        printed = []
        for line in lines:
            printed.append(line)
            match = _SERVING.search(line)
            if match is not None:
                return match[1]
        raise RuntimeError("".join(printed))

    def _keep_log(self, lines: IO[str]) -> None:
        with self.log.open("a") as log:
            for line in lines:
                log.write(line)
                log.flush()
