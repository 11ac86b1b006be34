"""How often and how long a request is tried; time passes at once here."""

from collections.abc import Callable, Mapping
from typing import Any

import anyio
import pytest
from botocore.credentials import Credentials

from s3edge_aiohttp import Answer, HttpClient, NoAnswerError
from s3edge_s3.access_keys import AccessKeys
from s3edge_s3.addresses import custom_address
from s3edge_s3.requests import BUDGET_S, MAX_TRIES, REQUEST_TIMEOUT_S, BucketRequests
from s3edge_s3.signing import Signer


pytestmark = pytest.mark.anyio

GIVEN_UP_AFTER_S = 4.0
"""What the port's callers are told to expect at the most."""

Step = Callable[[float], float | int]
"""Takes a try's timeout; returns a status, or how many seconds (a float) it takes not to answer."""


@pytest.fixture(scope="module")
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Let time pass at once."""
    return jumping_loop


class ScriptedClient(HttpClient):
    """Answers as it is told, one step a try, the last one again and again."""

    def __init__(self, *steps: Step) -> None:
        super().__init__("the store")
        self.steps = steps
        self.timeouts: list[float] = []
        self.moving_s = 0.0

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        timeout_s: float | None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Take the next step."""
        assert timeout_s is not None
        step = self.steps[min(len(self.timeouts), len(self.steps) - 1)](timeout_s)
        self.timeouts.append(timeout_s)
        await anyio.sleep(self.moving_s)
        if isinstance(step, int):
            return Answer(step, {}, b"")
        await anyio.sleep(step)
        raise NoAnswerError("nothing came", may_have_acted=True)


def answers(status: int) -> Step:
    """Answer at once."""
    return lambda _timeout_s: status


def refuses_connections(_timeout_s: float) -> float:
    """Fail at once."""
    return 0.0


def hangs(timeout_s: float) -> float:
    """Take the whole timeout."""
    return timeout_s


def requests_by(client: HttpClient, fraction: float = 1.0) -> BucketRequests:
    """Return requests through a client, with the times of production."""
    address = custom_address("http://store.test", "bucket", "auto")
    signer = Signer(AccessKeys(Credentials("id", "secret")), address.region)
    return BucketRequests(client, signer, address, random=lambda: fraction)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("step", [refuses_connections, hangs, answers(429), answers(503)])
async def test_a_call_that_cannot_succeed_ends_in_time(step: Step, fraction: float) -> None:
    """A few tries, and all over before a user has gone."""
    client = ScriptedClient(step)
    started = anyio.current_time()
    try:
        answer = await requests_by(client, fraction).send("HEAD", "key")
    except NoAnswerError:
        pass
    else:
        assert answer.status in (429, 503)
    assert 2 <= len(client.timeouts) <= MAX_TRIES
    assert anyio.current_time() - started <= BUDGET_S < GIVEN_UP_AFTER_S


async def test_a_store_that_hangs_is_asked_again_for_the_rest_of_the_time() -> None:
    """The second try gets what the first one left."""
    client = ScriptedClient(hangs)
    with pytest.raises(NoAnswerError):
        await requests_by(client, 0.0).send("HEAD", "key")
    assert client.timeouts == [REQUEST_TIMEOUT_S, pytest.approx(0.4)]


@pytest.mark.parametrize("failure", [refuses_connections, answers(500), answers(503), answers(429)])
async def test_a_moment_of_weakness_is_not_seen(failure: Step) -> None:
    """What helps is tried."""
    client = ScriptedClient(failure, failure, answers(200))
    assert (await requests_by(client).send("HEAD", "key")).status == 200


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 403, 404, 412, 501, 502])
async def test_an_answer_is_an_answer(status: int) -> None:
    """Only what may pass is tried again."""
    client = ScriptedClient(answers(status))
    assert (await requests_by(client).send("HEAD", "key")).status == status
    assert len(client.timeouts) == 1


async def test_tries_are_spread() -> None:
    """Many clients that failed together do not come back together."""
    ends: list[float] = []
    for fraction in (0.0, 1.0):
        started = anyio.current_time()
        await requests_by(ScriptedClient(answers(503)), fraction).send("HEAD", "key")
        ends.append(anyio.current_time() - started)
    assert ends == pytest.approx([0.7, 1.4])


async def test_time_in_which_bytes_move_is_not_counted() -> None:
    """A slow upload that ends in 503 is tried again, however long it took."""
    client = ScriptedClient(answers(503), answers(200))
    client.moving_s = 2 * BUDGET_S
    # The time that a try takes beyond its timeout is the time in which something moved; one whole
    # timeout of it may have been spent waiting.
    assert (await requests_by(client, 0.0).send("PUT", "key", body=b"x")).status == 200
