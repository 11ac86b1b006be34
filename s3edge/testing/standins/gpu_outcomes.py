"""How the stand-in of a GPU server writes outcomes into a Supabase project by itself."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import httpx


TIMEOUT_S = 5.0

_OPAQUE = "sb_secret_"
"""How a key begins that is no JWT: it goes into ``apikey`` alone."""

_log = logging.getLogger(__name__)


class SupabaseOutcomes:
    """
    Calls the functions that are for servers, over PostgREST.

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

    async def start(self, client: httpx.AsyncClient, task_id: UUID) -> None:
        """Say that a task is being worked on."""
        await self._call(client, "s3edge_start_task", {"p_task_id": str(task_id)})

    async def complete(
        self,
        client: httpx.AsyncClient,
        task_id: UUID,
        mask_url: str,
        labels: Sequence[str],
        metadata: Mapping[str, Any],
    ) -> None:
        """Say how it ended; the URL is kept without its query."""
        arguments = {
            "p_task_id": str(task_id),
            "p_mask_image_url": mask_url.partition("?")[0],
            "p_labels": list(labels),
            "p_metadata": dict(metadata),
        }
        await self._call(client, "s3edge_complete_task", arguments)

    async def _call(
        self, client: httpx.AsyncClient, function: str, arguments: Mapping[str, Any]
    ) -> None:
        """Call a function; when it fails, the gateway still records the outcome."""
        try:
            answer = await client.post(
                f"{self._rpc_url}/{function}",
                json=arguments,
                headers=self._headers,
                timeout=TIMEOUT_S,
            )
        except httpx.HTTPError as error:
            _log.warning("%s gave no answer: %s", function, type(error).__name__)
            return
        if answer.is_error:
            _log.warning("%s was refused with status %d", function, answer.status_code)
