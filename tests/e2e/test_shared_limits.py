"""Several gateways over one Redis limit a user as one would, and do without it while it is down."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from s3edge.testing.server import ServerProcess, StartServer
from s3edge.testing.standins.redis_process import RedisProcess
from s3edge_limits.redis_store import STEP_TIMEOUT_S


QUOTA = 40

PATIENCE_S = 30.0
"""How long a test waits for what takes a second on an idle machine."""

WARNING = "rate limits are not applied while their store is down"

StartGateway = Callable[..., ServerProcess]


@pytest.fixture
def start_gateway(
    start_server: StartServer, redis_server: RedisProcess, tmp_path: Path
) -> StartGateway:
    """Start gateways of one deployment: the same data, the same keys, the same Redis."""

    def start(**settings: str) -> ServerProcess:
        return start_server(
            S3EDGE_DATA_DIR=str(tmp_path / "shared"),
            S3EDGE_RATE_LIMIT_STORE=redis_server.url,
            S3EDGE_RATE_LIMITS=f"free.read={QUOTA}/hour",
            **settings,
        )

    return start


@contextmanager
def clients_of(gateways: list[ServerProcess]) -> Iterator[list[httpx.Client]]:
    """Return a client at each gateway, all signed in as the same new user."""
    token = gateways[0].token(uuid4(), "free")
    headers = {"Authorization": f"Bearer {token}"}
    with ExitStack() as stack:
        yield [
            stack.enter_context(httpx.Client(base_url=gateway.url, headers=headers, timeout=10))
            for gateway in gateways
        ]


def read(client: httpx.Client) -> httpx.Response:
    """Send a request that counts."""
    return client.get("/api/v1/me")


def wait_for(client: httpx.Client, condition: Callable[[httpx.Response], bool]) -> httpx.Response:
    """Send requests until an answer is as it should be."""
    ends_at = time.monotonic() + PATIENCE_S
    while True:
        response = read(client)
        if condition(response):
            return response
        assert time.monotonic() < ends_at, response.text
        time.sleep(0.05)


def is_limited(response: httpx.Response) -> bool:
    """Return whether a request was counted."""
    return "ratelimit" in response.headers


@pytest.mark.parametrize("gateways", [1, 4])
def test_a_user_has_one_quota_at_all_gateways(start_gateway: StartGateway, gateways: int) -> None:
    """Of 160 requests, eight at a time, exactly the quota is allowed, at one gateway and at four."""
    # Closed, so that a count that could not be kept would be seen.
    running = [start_gateway(S3EDGE_RATE_LIMIT_FAILURE="closed") for _ in range(gateways)]
    with clients_of(running) as others:
        for client in others:
            # Connected, so that a busy machine is not taken for a store that is away.
            wait_for(client, is_limited)
    with clients_of(running) as clients, ThreadPoolExecutor(8) as pool:
        turns = [client for client, _ in zip(cycle(clients), range(4 * QUOTA), strict=False)]
        statuses = Counter(answer.status_code for answer in pool.map(read, turns))
    assert statuses == {200: QUOTA, 429: 3 * QUOTA}


def test_each_gateway_tells_what_all_have_left(start_gateway: StartGateway) -> None:
    """Going round four gateways the allowance counts down, and ends at each of them."""
    with clients_of([start_gateway() for _ in range(4)]) as clients:
        answers = [read(client) for client, _ in zip(cycle(clients), range(QUOTA), strict=False)]
        left = [answer.headers["ratelimit"].partition(";t=")[0] for answer in answers]
        assert left == [f'"read";r={QUOTA - 1 - index}' for index in range(QUOTA)]
        for client in clients:
            refused = read(client)
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["retry-after"]) <= 3600


def test_a_redis_that_dies_under_load_stops_nobody(
    start_gateway: StartGateway, redis_server: RedisProcess
) -> None:
    """Open, requests pass with one warning; closed, they are 503; back, it counts for both again."""
    running = {
        failure: start_gateway(S3EDGE_RATE_LIMIT_FAILURE=failure) for failure in ("open", "closed")
    }
    with clients_of(list(running.values())) as (open_client, closed_client):
        answers = _while_loaded(open_client, lambda: _lose(redis_server, open_client))
        # No request that was under way when it died failed, and none was refused afterwards.
        assert set(answers) <= {(200, True), (429, True), (200, False)}
        assert {read(open_client).status_code for _ in range(2 * QUOTA)} == {200}

        refused = wait_for(closed_client, lambda answer: not is_limited(answer))
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
        assert int(refused.headers["retry-after"]) > 0
        assert httpx.get(f"{running['closed'].url}/health", timeout=10).status_code == 200

        redis_server.start()
        for client in (open_client, closed_client):
            wait_for(client, is_limited)
            wait_for(client, lambda answer: answer.status_code == 429)
    for server in running.values():
        assert server.stop() == 0
    assert running["open"].log.read_text().count(WARNING) == 1
    assert WARNING not in running["closed"].log.read_text()


def _lose(redis_server: RedisProcess, client: httpx.Client) -> None:
    wait_for(client, lambda answer: answer.status_code == 429)
    redis_server.stop()
    wait_for(client, lambda answer: not is_limited(answer))


def _while_loaded(client: httpx.Client, step: Callable[[], None]) -> list[tuple[int, bool]]:
    """Send requests from eight threads while a step is done; return how each was answered."""
    is_done = threading.Event()
    answers: list[tuple[int, bool]] = []

    def load() -> None:
        while not is_done.is_set():
            answer = read(client)
            answers.append((answer.status_code, is_limited(answer)))

    with ThreadPoolExecutor(8) as pool:
        loads = [pool.submit(load) for _ in range(8)]
        try:
            step()
        finally:
            is_done.set()
        for future in loads:
            future.result()
    return answers


def test_a_redis_that_hangs_is_not_waited_for_again_and_again(
    start_gateway: StartGateway, redis_server: RedisProcess
) -> None:
    """Requests one after the other do not each wait for it; it counts again when it goes on."""
    gateway = start_gateway()
    with clients_of([gateway]) as (client,):
        assert is_limited(read(client))
        redis_server.pause()
        started = time.monotonic()
        requests = 60
        answers = [read(client) for _ in range(requests)]
        took = time.monotonic() - started
        assert {answer.status_code for answer in answers} == {200}
        assert not any(map(is_limited, answers))
        assert took < requests * STEP_TIMEOUT_S
        redis_server.resume()
        wait_for(client, is_limited)
    assert gateway.stop() == 0
    assert gateway.log.read_text().count(WARNING) == 1


def test_a_gateway_starts_without_its_redis(
    start_gateway: StartGateway, redis_server: RedisProcess
) -> None:
    """The store of the limits may come up after the gateway."""
    redis_server.stop()
    with clients_of([start_gateway()]) as (client,):
        assert not is_limited(read(client))
        redis_server.start()
        assert wait_for(client, is_limited).status_code == 200


def test_doctor_looks_at_the_store(start_gateway: StartGateway, redis_server: RedisProcess) -> None:
    """It says whether counting works, and what to do if not; no password is printed."""
    gateway = start_gateway(S3EDGE_RATE_LIMIT_FAILURE="closed")
    well = gateway.run("doctor")
    assert "ok    limits: redis, " in well.stdout
    redis_server.stop()
    ill = gateway.run("doctor")
    assert ill.returncode == 1
    assert (
        "FAIL  limits: redis: The store of the rate limits cannot be reached; fix it, or point"
        " S3EDGE_RATE_LIMIT_STORE elsewhere" in ill.stdout
    )


def test_a_malformed_address_stops_the_start(server: ServerProcess) -> None:
    """One line names the setting and says what to write, without what was written."""
    store = {"S3EDGE_RATE_LIMIT_STORE": "redis://:hunter2/hunter2@store:6379/0"}
    wrong = ServerProcess(server.folder, {**server.settings, **store})
    for command in (("serve", "--port", "0"), ("doctor",)):
        ended = wrong.run(*command)
        assert ended.returncode != 0
        said = ended.stdout + ended.stderr
        assert "S3EDGE_RATE_LIMIT_STORE: write redis://host:6379/0" in said
        assert "hunter2" not in said
