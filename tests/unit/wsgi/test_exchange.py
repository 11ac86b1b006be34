"""One request and its response, where its task and its thread do not agree on the time."""

import asyncio
import io

import anyio
import pytest

from s3edge.testing import MemoryDeployment
from s3edge.web.app import WebApp
from s3edge.web.http import Call, Request, Response, Route
from s3edge_wsgi.environ import RouteTable
from s3edge_wsgi.exchange import Exchange, Stopped
from tests.waiting import WITHIN_S


pytestmark = pytest.mark.anyio


async def _read(call: Call) -> Response:
    """Answer with the body."""
    return Response(200, [], b"".join([chunk async for chunk in call.request.body]))


async def test_a_thread_that_leaves_before_its_task_begins_ends_it(
    deployment: MemoryDeployment,
) -> None:
    """Else the task would ask for the body for ever, and keep its place."""
    route = Route("POST", "/reading", _read, "reading", limits_anonymous=False)
    web = WebApp(deployment.gateway, extra_routes=[route])
    exchange = Exchange(
        asyncio.get_running_loop(), io.BytesIO(b"body"), length=4, is_terminated=True
    )
    path, _ = RouteTable(web.paths).find("/reading")
    request = Request("POST", "/reading", "", {}, exchange.body())
    exchange.cancel()
    async with deployment.gateway.running():
        with anyio.fail_after(WITHIN_S):
            await exchange.serve(web, request, path)
    with pytest.raises(Stopped):
        await asyncio.to_thread(exchange.response)
    assert web._admission.serving == 0
