"""A 500 may be an image's fault, or the server's: who decides, and what it costs the others."""

import logging
from collections.abc import Callable, Mapping
from uuid import UUID

import anyio
import msgspec
import pytest
from attrs import evolve

from s3edge.errors import Code, EdgeError
from s3edge.testing import ManualClock
from s3edge.testing.standins.scripted_server import (
    Received,
    Reply,
    ScriptedServer,
    raw,
    reply,
    silence,
)
from s3edge.values import PredictRequest
from s3edge_inference import http_backend
from s3edge_inference.http_backend import HttpBackend
from s3edge_inference.servers import FAILURES_TO_REST, REST_S, USERS_TO_REST


pytestmark = pytest.mark.anyio

Logged = Callable[[], list[tuple[int, str]]]

PREDICT = "/api/v1/predict"
INFO = "/api/v1/model/info"

MALLORY, *OTHERS = [UUID(int=number) for number in range(1, 6)]

REQUEST = PredictRequest(
    UUID("11111111-1111-4111-8111-111111111111"), MALLORY, "http://images.test/a", "x"
)

SHORT_S = 0.2
"""As long as the tests wait for what never comes."""


def stumbling(well: Mapping[str, Reply]) -> Reply:
    """Answer 500 to one user, whatever they ask, and as the contract has it to all others."""

    async def answer(received: Received) -> bytes:
        user_id = UUID(msgspec.json.decode(received.body)["user_id"])
        return await (reply({}, 500) if user_id == MALLORY else well[PREDICT])(received)

    return answer


async def fails(backend: HttpBackend, user_id: UUID) -> Code:
    """Return how a prediction for a user is refused."""
    with pytest.raises(EdgeError) as caught:
        await backend.predict(evolve(REQUEST, user_id=user_id))
    return caught.value.code


async def test_one_users_images_do_not_keep_the_server_from_others(
    backend: HttpBackend, server: ScriptedServer, well: Mapping[str, Reply]
) -> None:
    """However many make it stumble, one after the other or at once."""
    server.replies[PREDICT] = stumbling(well)
    for _ in range(10 * FAILURES_TO_REST):
        assert await fails(backend, MALLORY) is Code.INFERENCE_FAILED
    async with anyio.create_task_group() as group:
        for _ in range(10 * FAILURES_TO_REST):
            group.start_soon(fails, backend, MALLORY)
        for user_id in OTHERS:
            group.start_soon(backend.predict, evolve(REQUEST, user_id=user_id))
    assert server.count(PREDICT) == 20 * FAILURES_TO_REST + len(OTHERS)


async def test_their_next_image_goes_elsewhere(
    both: HttpBackend, server: ScriptedServer, other: ScriptedServer, time: ManualClock
) -> None:
    """If the server was to blame after all, its only user loses one task in 3 seconds to it."""
    server.replies[PREDICT] = reply({}, 500)
    for rounds in (1, 2):
        lost = 0
        for _ in range(10):
            try:
                await both.predict(REQUEST)
            except EdgeError:
                lost += 1
        assert (lost, server.count(PREDICT)) == (1, rounds)
        time.advance(REST_S)
    assert other.count(PREDICT) == 18


@pytest.mark.parametrize("info", [reply({}, 500), reply({}, 502), raw(b""), silence])
async def test_a_server_that_fails_on_everything_is_rested(
    backend: HttpBackend, server: ScriptedServer, info: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by one user: what it is asked besides has no image in it."""
    monkeypatch.setattr(http_backend, "PROBE_TIMEOUT_S", SHORT_S)
    server.replies[PREDICT] = reply({}, 500)
    server.replies[INFO] = info
    for _ in range(FAILURES_TO_REST):
        assert await fails(backend, MALLORY) is Code.INFERENCE_FAILED
    assert await fails(backend, MALLORY) is Code.SERVICE_UNAVAILABLE
    assert server.count(PREDICT) == FAILURES_TO_REST


async def test_a_server_that_fails_on_everybodys_images_is_rested(
    backend: HttpBackend, server: ScriptedServer, time: ManualClock, well: Mapping[str, Reply]
) -> None:
    """Though it knows its model; it is tried after the rest, and comes back when it is mended."""
    server.replies[PREDICT] = reply({}, 500)
    for user_id in OTHERS[:USERS_TO_REST]:
        assert await fails(backend, user_id) is Code.INFERENCE_FAILED
    assert await fails(backend, MALLORY) is Code.SERVICE_UNAVAILABLE
    server.replies[PREDICT] = well[PREDICT]
    time.advance(REST_S)
    for _ in range(5):
        await backend.predict(REQUEST)


async def test_a_server_that_lost_its_model_is_busy(
    both: HttpBackend, server: ScriptedServer, other: ScriptedServer
) -> None:
    """It says so when it is asked, and leaves everybody's work to the other."""
    server.replies[PREDICT] = reply({}, 500)
    server.replies[INFO] = reply({"error": "MODEL_NOT_LOADED"}, 503)
    await fails(both, MALLORY)
    for user_id in OTHERS:
        await both.predict(evolve(REQUEST, user_id=user_id))
    assert (server.count(PREDICT), other.count(PREDICT)) == (1, len(OTHERS))


async def test_the_operator_is_told_of_each(
    backend: HttpBackend, server: ScriptedServer, logged: Logged
) -> None:
    """A 500 is worth a look whoever is to blame."""
    server.replies[PREDICT] = reply({}, 500)
    await fails(backend, MALLORY)
    [(level, line)] = logged()
    assert level == logging.ERROR
    assert "status 500" in line
