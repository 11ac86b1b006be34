"""What is agreed on before the first charge, when the database does not answer."""

from functools import partial
from uuid import uuid4

import anyio
import pytest
from anyio.abc import SocketStream

from s3edge.errors import Code
from s3edge.gateway import SystemClock
from s3edge.testing.contracts.concurrency import at_once
from s3edge.values import User
from s3edge_supabase.database import SupabaseDatabase
from s3edge_supabase.project import SupabaseProject
from s3edge_supabase.rows import Terms


pytestmark = pytest.mark.anyio

ANSWERED_WITHIN_S = 5.0
"""What an app may wait to hear of an outage."""


async def keep_silent(connection: SocketStream) -> None:
    """Take a request, and never answer it."""
    async with connection:
        await anyio.sleep_forever()


async def test_nobody_waits_for_more_than_one_silence() -> None:
    """Those who come first, all at once, are refused all at once, not one after the other."""
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, keep_silent)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        project = SupabaseProject(f"http://127.0.0.1:{port}", "sb_publishable_1", "sb_secret_1")
        async with SupabaseDatabase(project, SystemClock(), Terms(100, 1, 900)) as database:
            with anyio.fail_after(ANSWERED_WITHIN_S):
                profiles, refusals = await at_once(
                    [partial(database.profile, User(uuid4(), jwt="x")) for _ in range(5)]
                )
        assert profiles == []
        assert [error.code for error in refusals] == [Code.SERVICE_UNAVAILABLE] * 5
        group.cancel_scope.cancel()
