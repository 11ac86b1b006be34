"""Limits in Redis: one step a hit, quick answers when it is down or hangs, back by themselves."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import cast
from uuid import uuid4

import anyio
import pytest
import redis.asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from s3edge.errors import Code, EdgeError
from s3edge.testing.contracts.concurrency import at_once
from s3edge.testing.programs import REDIS_SERVER
from s3edge.testing.standins.fault_proxy import FaultProxy, Mode
from s3edge.testing.standins.redis_process import RedisProcess
from s3edge.testing.standins.watched import HOST
from s3edge.values import Allowance, RateLimit
from s3edge_limits import redis_store
from s3edge_limits.redis_store import KEY_PREFIX, MAX_CONNECTIONS, RedisRateLimiter, parse_address
from s3edge_limits.rest import REST_S


pytestmark = pytest.mark.anyio

LIMIT = RateLimit("segment", 50, 3600)

PASSWORD = "p/a#s@s:w?o%rd"
ENCODED = "p%2Fa%23s%40s%3Aw%3Fo%25rd"

RECOVERY_S = 20.0
"""How long a test waits for what takes a second on an idle machine."""


@pytest.fixture
def admin(redis_server: RedisProcess) -> Iterator["redis.Redis"]:
    """Return a connection that looks at the server from outside."""
    with redis.Redis(HOST, redis_server.port) as client:
        yield client


@pytest.fixture
async def limiter(redis_server: RedisProcess) -> AsyncIterator[RedisRateLimiter]:
    """Return a limiter on the server."""
    async with limiter_at(redis_server.url) as limiter:
        yield limiter


@asynccontextmanager
async def limiter_at(url: str) -> AsyncIterator[RedisRateLimiter]:
    """Open a limiter as a setting asks for it."""
    async with RedisRateLimiter(parse_address(url)) as limiter:
        yield limiter


def connections_of(admin: "redis.Redis") -> int:
    """Return how many connections the server has, the admin's own among them."""
    return len(cast("list[object]", admin.client_list()))


async def refused(limiter: RedisRateLimiter) -> str:
    """Hit a limit of a store that is down, and return what is said of it."""
    with pytest.raises(EdgeError) as caught:
        await limiter.hit(str(uuid4()), LIMIT)
    assert caught.value.code is Code.SERVICE_UNAVAILABLE
    assert caught.value.retryable
    return caught.value.message


async def hit_once_it_is_back(limiter: RedisRateLimiter, subject: str) -> Allowance:
    """Hit until the store answers."""
    with anyio.fail_after(RECOVERY_S):
        while True:
            try:
                return await limiter.hit(subject, LIMIT)
            except EdgeError:
                await anyio.sleep(REST_S / 10)


async def test_a_hit_is_one_script(redis_server: RedisProcess, limiter: RedisRateLimiter) -> None:
    """Once the server knows the scripts, a hit is one of them, and reading what is left another."""
    subject = str(uuid4())
    await limiter.hit(subject, LIMIT)
    seen: list[str] = []
    async with (
        redis.asyncio.Redis(host=HOST, port=redis_server.port) as client,
        client.monitor() as monitor,
    ):
        await limiter.hit(subject, LIMIT)
        await client.echo("the end")
        async for command in monitor.listen():
            if command["command"] == "ECHO the end":
                break
            # What scripts do by themselves is part of their step.
            if command["client_type"] != "lua":
                seen.append(command["command"].split()[0])
    assert seen == ["EVALSHA", "EVALSHA"]


async def test_keys_are_ours_and_pass_away(admin: "redis.Redis", limiter: RedisRateLimiter) -> None:
    """Each key begins with our prefix, and nothing is kept longer than two windows."""
    for limit in (LIMIT, RateLimit("read", 3, 60)):
        await limiter.hit("user:x", limit)
    keys = list(admin.scan_iter())
    assert len(keys) == 2
    assert all(key.decode().startswith(KEY_PREFIX) for key in keys)
    left = [cast("int", admin.ttl(key)) for key in keys]
    assert all(0 < seconds <= 2 * LIMIT.window_s for seconds in left)


async def test_several_gateways_count_together(redis_server: RedisProcess) -> None:
    """Four limiters, each with connections of its own, allow together what one would."""
    subject = str(uuid4())
    async with (
        limiter_at(redis_server.url) as first,
        limiter_at(redis_server.url) as second,
        limiter_at(redis_server.url) as third,
        limiter_at(redis_server.url.replace("redis:", "valkey:")) as fourth,
    ):
        limiters = (first, second, third, fourth)
        for limiter in limiters:
            # Connected, so that a busy machine is not taken for a store that is away.
            await limiter.hit(str(uuid4()), LIMIT)
        hits = [partial(limiter.hit, subject, LIMIT) for limiter in limiters * 20]
        allowances, refusals = await at_once(hits)
    assert refusals == []
    assert sum(allowance.allowed for allowance in allowances) == LIMIT.quota


async def test_the_window_slides(redis_server: RedisProcess, limiter: RedisRateLimiter) -> None:
    """Quota returns with time, and never more than it holds for two windows that touch."""
    subject, limit = str(uuid4()), RateLimit("segment", 4, 1)
    for _ in range(limit.quota):
        assert (await limiter.hit(subject, limit)).allowed
    assert not (await limiter.hit(subject, limit)).allowed
    with anyio.fail_after(RECOVERY_S):
        while not (allowance := await limiter.hit(subject, limit)).allowed:
            await anyio.sleep(0.01)
    # The window before still counts, so the whole quota is not there again.
    assert allowance.remaining < limit.quota - 1


async def test_connections_are_bounded(admin: "redis.Redis", limiter: RedisRateLimiter) -> None:
    """Twice as many requests at once as connections: half wait for one, and each is counted."""
    # No more: a busy machine gives each of them half a second to get one.
    hits = [partial(limiter.hit, str(uuid4()), LIMIT) for _ in range(2 * MAX_CONNECTIONS)]
    allowances, refusals = await at_once(hits)
    assert refusals == []
    assert [allowance.remaining for allowance in allowances] == [LIMIT.quota - 1] * len(hits)
    # All were open, so the others had to wait.
    assert connections_of(admin) == MAX_CONNECTIONS + 1


async def test_connections_are_closed_with_the_limiter(
    redis_server: RedisProcess, admin: "redis.Redis"
) -> None:
    """A gateway that stops leaves no connection behind."""
    async with limiter_at(redis_server.url) as limiter:
        await limiter.hit(str(uuid4()), LIMIT)
        assert connections_of(admin) == 2
    with anyio.fail_after(RECOVERY_S):
        while connections_of(admin) > 1:
            await anyio.sleep(0.01)


async def test_a_server_that_was_restarted_is_used_again(
    redis_server: RedisProcess, limiter: RedisRateLimiter
) -> None:
    """It knows neither our connections nor our scripts any more; both are made anew."""
    subject = str(uuid4())
    await limiter.hit(subject, LIMIT)
    redis_server.stop()
    assert await refused(limiter) == "The store of the rate limits cannot be reached."
    redis_server.start()
    assert (await hit_once_it_is_back(limiter, subject)).remaining == LIMIT.quota - 1
    assert (await limiter.hit(subject, LIMIT)).remaining == LIMIT.quota - 2


async def test_a_restart_that_nobody_noticed_costs_nothing(
    redis_server: RedisProcess, limiter: RedisRateLimiter
) -> None:
    """A connection that was closed while it was idle is seen to be, and no request fails."""
    await at_once([partial(limiter.hit, str(index), LIMIT) for index in range(20)])
    redis_server.stop()
    redis_server.start()
    # The ends of the connections are read when the loop next turns.
    await anyio.sleep(0.05)
    assert (await limiter.hit(str(uuid4()), LIMIT)).allowed


async def test_scripts_that_were_lost_are_sent_again(
    admin: "redis.Redis", limiter: RedisRateLimiter
) -> None:
    """After a failover or SCRIPT FLUSH a hit is counted as ever, and once."""
    subject = str(uuid4())
    await limiter.hit(subject, LIMIT)
    admin.script_flush()
    assert (await limiter.hit(subject, LIMIT)).remaining == LIMIT.quota - 2


async def test_a_server_that_hangs_is_given_up_and_left_alone(
    redis_server: RedisProcess, limiter: RedisRateLimiter
) -> None:
    """However many requests are under way, each is told in time; later ones are told at once."""
    await limiter.hit(str(uuid4()), LIMIT)
    redis_server.pause()
    hits = [partial(limiter.hit, str(index), LIMIT) for index in range(4 * MAX_CONNECTIONS)]
    with anyio.fail_after(RECOVERY_S):
        allowances, refusals = await at_once(hits)
    assert allowances == []
    assert {refusal.code for refusal in refusals} == {Code.SERVICE_UNAVAILABLE}
    redis_server.resume()
    subject = str(uuid4())
    assert (await hit_once_it_is_back(limiter, subject)).remaining == LIMIT.quota - 1
    # White-box: every connection came back to the pool.
    assert len(limiter._pool._in_use_connections) == 0
    # Not more than a busy machine can connect anew in the time that a hit has.
    _, refusals = await at_once(hits[: MAX_CONNECTIONS + 1])
    assert refusals == []


async def test_requests_that_are_given_up_keep_no_connection(
    redis_server: RedisProcess, limiter: RedisRateLimiter
) -> None:
    """Clients that go away while the store hangs do not use up the pool."""
    hits = [partial(limiter.hit, str(index), LIMIT) for index in range(2 * MAX_CONNECTIONS)]
    for _ in range(3):
        redis_server.pause()
        async with anyio.create_task_group() as group:
            group.start_soon(at_once, hits)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        redis_server.resume()
        await hit_once_it_is_back(limiter, str(uuid4()))
    # White-box: one connection that is lost at a time would not be noticed for long.
    assert len(limiter._pool._in_use_connections) == 0


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.HANG, Mode.GARBAGE, Mode.ERROR])
async def test_whatever_is_at_the_other_end_is_unavailable(
    redis_server: RedisProcess, mode: Mode
) -> None:
    """No port, silence, and bytes that are not Redis's are all the store being down; it recovers."""
    with FaultProxy(HOST, redis_server.port) as proxy:
        async with limiter_at(f"redis://{HOST}:{proxy.port}") as limiter:
            await limiter.hit(str(uuid4()), LIMIT)
            for _ in range(2):
                proxy.mode = mode
                assert "store of the rate limits" in await refused(limiter)
                with pytest.raises(EdgeError) as caught:
                    await limiter.check()
                assert caught.value.code is Code.SERVICE_UNAVAILABLE
                proxy.mode = Mode.PASS
                await limiter.check()
                await hit_once_it_is_back(limiter, str(uuid4()))


async def test_a_password_is_sent_and_never_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the right one hits are counted; a wrong one is said to be, and neither is printed."""
    REDIS_SERVER.require()
    caplog.set_level("DEBUG")
    with RedisProcess(tmp_path / "log", {"requirepass": PASSWORD}) as server:
        right = f"redis://:{ENCODED}@{HOST}:{server.port}/3"
        async with limiter_at(right) as limiter:
            await limiter.check()
            assert (await limiter.hit(str(uuid4()), LIMIT)).allowed
        shown = [repr(parse_address(right)), repr(limiter), repr(vars(limiter))]
        for url in (right.replace("rd@", "rong@"), f"redis://{HOST}:{server.port}"):
            async with limiter_at(url) as limiter:
                shown.append(await refused(limiter))
                assert "user and password" in shown[-1]
                with pytest.raises(EdgeError, match="user and password"):
                    await limiter.check()
    for text in (*shown, caplog.text):
        assert PASSWORD not in text
        assert ENCODED not in text
        assert "rong" not in text


async def test_a_store_that_refuses_writes_is_down(
    admin: "redis.Redis", limiter: RedisRateLimiter
) -> None:
    """A server without memory left, say; the message names the kind of error."""
    admin.config_set("maxmemory", 1)
    assert "OutOfMemoryError" in await refused(limiter)
    admin.config_set("maxmemory", 0)
    await hit_once_it_is_back(limiter, str(uuid4()))


async def test_tls_needs_a_certificate_that_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``rediss:`` counts over TLS, and gives its password to nobody who only pretends."""
    REDIS_SERVER.require()
    certificate, key = _self_signed(tmp_path)
    with RedisProcess(tmp_path / "log", _encrypted(certificate, key)) as server:
        url = f"rediss://localhost:{server.port}"
        async with limiter_at(url) as limiter:
            assert "over TLS" in await refused(limiter)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with limiter_at(url.replace("rediss:", "valkeys:")) as limiter:
            assert (await limiter.hit(str(uuid4()), LIMIT)).allowed
        async with limiter_at(f"rediss://{HOST}:{server.port}") as limiter:
            # The certificate is another host's.
            assert "over TLS" in await refused(limiter)


async def test_a_stop_waits_for_no_farewell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """TLS ends with a word of the other side's; a gateway stops as ever without it."""
    REDIS_SERVER.require()
    certificate, key = _self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with RedisProcess(tmp_path / "log", _encrypted(certificate, key)) as server:
        with anyio.fail_after(RECOVERY_S):
            async with limiter_at(f"rediss://localhost:{server.port}") as limiter:
                await at_once([partial(limiter.hit, str(uuid4()), LIMIT) for _ in range(2)])
                server.pause()
        server.resume()
    [record] = [record for record in caplog.records if record.name == redis_store.__name__]
    assert "could not be closed in an orderly way" in record.getMessage()


def _encrypted(certificate: Path, key: Path) -> Mapping[str, str]:
    """Return the options of a server that speaks TLS only."""
    return {
        "tls-cert-file": str(certificate),
        "tls-key-file": str(key),
        "tls-ca-cert-file": str(certificate),
        "tls-auth-clients": "no",
    }


def _self_signed(folder: Path) -> tuple[Path, Path]:
    """Make the certificate of ``localhost``, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_file, key_file


@pytest.mark.parametrize(
    ("url", "host", "port", "database"),
    [
        ("redis://store", "store", 6379, 0),
        ("redis://store/", "store", 6379, 0),
        ("redis://store:7000/12", "store", 7000, 12),
        ("valkey://[::1]:7000/0", "::1", 7000, 0),
    ],
)
async def test_a_url_is_read(url: str, host: str, port: int, database: int) -> None:
    """Port and database have the usual defaults."""
    address = parse_address(url)
    assert (address.host, address.port, address.database) == (host, port, database)
    assert (address.username, address.password, address.is_encrypted) == (None, None, False)


async def test_a_url_names_a_user() -> None:
    """User and password are decoded."""
    address = parse_address(f"rediss://some%40body:{ENCODED}@store")
    assert (address.username, address.password) == ("some@body", PASSWORD)
    assert address.is_encrypted


@pytest.mark.parametrize(
    "url",
    [
        "redis:",
        "redis://",
        "redis:store",
        "redis:///0",
        "redis://store:0",
        "redis://store:port",
        "redis://store:70000",
        "redis://store/one",
        "redis://store/0/1",
        "redis://store?db=1",
        "redis://store/0#1",
        "redis://[store",
        "redis://:hunter2/hunter2@store",
        "redis://:hunter2#hunter2@store",
        "redis://hunter2:hunter2?hunter2@store",
    ],
)
async def test_a_malformed_url_is_explained_in_one_line(url: str) -> None:
    """The message says how to write it, and repeats nothing: it may hold a password."""
    with pytest.raises(ValueError, match=r"write redis://host:6379/0") as caught:
        parse_address(url)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_the_times_fit_together() -> None:
    """A step that takes too long is noticed as that, before the whole request is given up."""
    assert redis_store.STEP_TIMEOUT_S < redis_store.TIMEOUT_S
