"""The Redis of the tests is a real one that can be taken away, and that nobody leaves behind."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from s3edge.testing.standins.redis_process import RedisProcess
from s3edge.testing.standins.watched import HOST


NEVER = Retry(NoBackoff(), 0)

ABANDONS_ITS_SERVER = """
import os, sys
from pathlib import Path
from s3edge.testing.standins.redis_process import RedisProcess

server = RedisProcess(Path(sys.argv[1]))
server.start()
if sys.argv[2] == "paused":
    server.pause()
print(server.port, flush=True)
sys.stdin.read()
os._exit(1)
"""


def client_of(server: RedisProcess, timeout_s: float = 10) -> "redis.Redis":
    """Return a client that does not try twice."""
    return redis.Redis(
        HOST, server.port, socket_timeout=timeout_s, retry=NEVER, decode_responses=True
    )


def test_it_listens_on_loopback_only_and_keeps_nothing(
    redis_server: RedisProcess, tmp_path: Path
) -> None:
    """Its configuration is what the tests rely on."""
    with client_of(redis_server) as client:
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("appendonly") == {"appendonly": "no"}


def test_started_again_it_has_its_port_and_knows_nothing(redis_server: RedisProcess) -> None:
    """Stopping is a crash: no key stays, no script, and no process."""
    port, pid = redis_server.port, redis_server.pid
    with client_of(redis_server) as client:
        client.set("key", "value")
        redis_server.stop()
        with pytest.raises(redis.ConnectionError):
            client.get("key")
        with pytest.raises(RuntimeError, match="does not run"):
            _ = redis_server.pid
        redis_server.start()
        assert client.get("key") is None
    assert redis_server.port == port
    assert redis_server.pid != pid


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a port cannot be kept for another")
def test_while_it_is_down_nobody_else_is_given_its_port(redis_server: RedisProcess) -> None:
    """Or it could not be started again."""
    redis_server.stop()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((HOST, redis_server.port))
    redis_server.start()
    with client_of(redis_server) as client:
        assert client.ping()


def test_paused_it_answers_nothing_until_it_is_resumed(redis_server: RedisProcess) -> None:
    """Connections are made, as those of a machine that hangs."""
    redis_server.pause()
    with client_of(redis_server, timeout_s=0.2) as client, pytest.raises(redis.TimeoutError):
        client.ping()
    redis_server.resume()
    with client_of(redis_server) as client:
        assert client.ping()


def test_a_paused_server_can_be_stopped(redis_server: RedisProcess) -> None:
    """A test that fails meanwhile leaves none behind."""
    redis_server.pause()
    redis_server.stop()
    redis_server.start()
    with client_of(redis_server) as client:
        assert client.ping()


def test_a_start_that_fails_says_why(redis_server: RedisProcess, tmp_path: Path) -> None:
    """The log is in the message; starting twice is refused."""
    with pytest.raises(RuntimeError, match="runs already"):
        redis_server.start()
    with pytest.raises(RuntimeError, match="no-such-option"):
        RedisProcess(tmp_path / "other.log", {"no-such-option": "1"}).start()


@pytest.mark.parametrize("state", ["running", "paused"])
def test_a_server_ends_with_the_process_that_started_it(
    redis_server: RedisProcess, tmp_path: Path, state: str
) -> None:
    """Also when that process has no time to clean up, and when it had paused it."""
    command = [sys.executable, "-c", ABANDONS_ITS_SERVER, str(tmp_path / "log"), state]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with redis.Redis(HOST, port, socket_timeout=60, retry=NEVER) as client:
            process.stdin.close()
            with pytest.raises(redis.ConnectionError):
                client.blpop(["nothing"], timeout=0)
