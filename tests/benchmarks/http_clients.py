"""How many requests the adapters' HTTP client makes in a second of processor time, over httpx."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import httpx

from s3edge_aiohttp import HttpClient


CONNECTIONS = 32
SECONDS = 1.0
ROUNDS = 5

BODY = b'{"success":true}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(
    BODY
)

ROOT = Path(__file__).parents[2]


def compare_http_clients() -> None:
    """Print how often each gets the same few bytes, by turns; medians of several rounds."""
    command = (sys.executable, "-m", "tests.benchmarks.http_clients")
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert server.stdout is not None
        ours, theirs = asyncio.run(measure(server.stdout.readline().strip()))
    finally:
        server.terminate()
        server.wait()
    print(f"\n{'HTTP client':<24}{'requests/s':>12}{'ratio':>8}")
    print(f"{'httpx':<24}{theirs:>12.0f}{1:>8.2f}")
    print(f"{'s3edge_aiohttp':<24}{ours:>12.0f}{ours / theirs:>8.2f}")


async def measure(url: str) -> tuple[float, float]:
    """Return the rate of the adapters' client, and that of httpx."""
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    async with (
        HttpClient("the server", connections=CONNECTIONS) as ours,
        httpx.AsyncClient(limits=limits, trust_env=False) as theirs,
    ):

        async def by_ours() -> None:
            assert (await ours.fetch("GET", url, timeout_s=5)).body == BODY

        async def by_theirs() -> None:
            assert (await theirs.get(url, timeout=5)).content == BODY

        rounds = [(await rate(by_ours), await rate(by_theirs)) for _ in range(ROUNDS)]
    return median(each[0] for each in rounds), median(each[1] for each in rounds)


async def rate(ask: Callable[[], Awaitable[None]]) -> float:
    """Return how many requests a second of this process's time serves, so many of them at once."""
    ends_at = time.perf_counter() + SECONDS
    began = time.process_time()

    async def over_and_over() -> int:
        asked = 0
        while time.perf_counter() < ends_at:
            await ask()
            asked += 1
        return asked

    counts = await asyncio.gather(*(over_and_over() for _ in range(CONNECTIONS)))
    return sum(counts) / (time.process_time() - began)


class Answering(asyncio.Protocol):
    """Answers each request without looking at it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer: a request of a few headers comes in one piece."""
        self._transport.write(ANSWER + BODY)


async def serve() -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
