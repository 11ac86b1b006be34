"""Clients of what others name connect to the public Internet, and to nothing else."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from s3edge_aiohttp import ForbiddenAddressError, HttpClient
from s3edge_aiohttp.destinations import is_public


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "168.63.129.16",
        "192.0.0.9",
        "192.0.0.170",
        "192.88.99.1",
        "192.168.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001:db8::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "feff::1",
        "3fff::1",
        "3fff:fff::1",
        "::ffff:168.63.129.16",
        "64:ff9b::a83f:8110",
        "ff02::1",
        "localhost",
        "",
    ],
)
def test_an_address_inside_is_not_public(address: str) -> None:
    """Private, shared, loopback, link-local, reserved, multicast; also inside an IPv6 address."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_an_address_outside_is_public(address: str) -> None:
    """Also one that an IPv6-only machine reaches through NAT64."""
    assert is_public(address)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Listen on loopback; nobody must come."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        yield listener


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
def test_nothing_is_connected_to_that_is_not_public(listener: socket.socket, host: str) -> None:
    """By number, by name, and in IPv6's wrapping; the connection is not even begun."""
    port = listener.getsockname()[1]

    async def fetch() -> None:
        async with HttpClient("somebody", public_only=True) as client:
            await client.fetch("GET", f"http://{host}:{port}/", timeout_s=5)

    with pytest.raises(ForbiddenAddressError, match="the address of somebody is not public"):
        asyncio.run(fetch())
    with pytest.raises(BlockingIOError):
        listener.accept()
