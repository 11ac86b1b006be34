"""How the stand-in of a GPU server writes outcomes into the database by itself."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any
from uuid import UUID

import anyio
import httpx
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb


TIMEOUT_S = 5.0

_OPAQUE = "sb_secret_"
"""How a key begins that is no JWT: it goes into ``apikey`` alone."""

_log = logging.getLogger(__name__)


class Outcomes(ABC):
    """Calls the functions that are for servers."""

    def opened(self) -> AbstractAsyncContextManager[object]:
        """Return what holds open, once, whatever the calls need."""
        return nullcontext()

    async def start(self, task_id: UUID) -> None:
        """Say that a task is being worked on."""
        await self._call("s3edge_start_task", {"p_task_id": str(task_id)})

    async def complete(
        self, task_id: UUID, mask_url: str, labels: Sequence[str], metadata: Mapping[str, Any]
    ) -> bool:
        """Say how it ended; the URL is kept without its query. Return whether that was heard."""
        arguments = {
            "p_task_id": str(task_id),
            "p_mask_image_url": mask_url.partition("?")[0],
            "p_labels": list(labels),
            "p_metadata": dict(metadata),
        }
        return await self._call("s3edge_complete_task", arguments)

    @abstractmethod
    async def _call(self, function: str, arguments: Mapping[str, Any]) -> bool:
        """
        Call a function of ``public``; when it fails, the gateway still records the outcome.

        Returns:
            Whether it was called; why not is logged.
        """


class SupabaseOutcomes(Outcomes):
    """
    Calls them over PostgREST.

    Headers by https://supabase.com/docs/guides/getting-started/migrating-to-new-api-keys.

    Args:
        url: The project's.
        service_key: ``sb_secret_...``, or the legacy ``service_role`` key.
    """

    def __init__(self, url: str, service_key: str) -> None:
        self._rpc_url = f"{url.rstrip('/')}/rest/v1/rpc"
        self._headers = {"apikey": service_key, "User-Agent": "gpu-server"}
        if not service_key.startswith(_OPAQUE):
            self._headers["Authorization"] = f"Bearer {service_key}"
        self._client = httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S)

    def opened(self) -> AbstractAsyncContextManager[object]:
        """Hold the client open."""
        return self._client

    async def _call(self, function: str, arguments: Mapping[str, Any]) -> bool:
        try:
            answer = await self._client.post(
                f"{self._rpc_url}/{function}", json=arguments, headers=self._headers
            )
        except httpx.HTTPError as error:
            _log.warning("%s gave no answer: %s", function, type(error).__name__)
            return False
        if answer.is_error:
            _log.warning("%s was refused with status %d", function, answer.status_code)
        return answer.is_success


class PostgresOutcomes(Outcomes):
    """
    Calls them in the database itself, each over a connection of its own.

    Args:
        url: ``postgresql://...``, of a role that may call them; it may hold a password.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    async def _call(self, function: str, arguments: Mapping[str, Any]) -> bool:
        call = sql.SQL("select {}({})").format(
            sql.Identifier("public", function),
            sql.SQL(", ").join(
                sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name))
                for name in arguments
            ),
        )
        values = {
            name: value if isinstance(value, str) else Jsonb(value)
            for name, value in arguments.items()
        }
        try:
            with anyio.fail_after(TIMEOUT_S):
                async with await psycopg.AsyncConnection.connect(self._url) as connection:
                    await connection.execute(call, values)
        except (psycopg.Error, TimeoutError) as error:
            # Its text may hold the host and the user.
            _log.warning("%s could not be called: %s", function, type(error).__name__)
            return False
        return True
