"""Whose address a request comes from, when proxies stand in between."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from s3edge.web.http import Request


Network = IPv4Network | IPv6Network

UNKNOWN = "unknown"


def parse_networks(text: str) -> tuple[Network, ...]:
    """
    Return the networks of a comma-separated list of addresses and CIDR blocks.

    Raises:
        ValueError: Says which item cannot be read.
    """
    items = (part.strip() for part in text.split(","))
    return tuple(ip_network(item, strict=False) for item in items if item)


def client_address(request: Request, trusted_proxies: Sequence[Network]) -> str:
    """
    Return the client's address: the peer's own, or what trusted proxies say it is.

    ``X-Forwarded-For`` grows at its right end, and only what a trusted proxy added can be believed:
    the client is the rightmost address that is not itself a trusted proxy.
    """
    peer = request.peer or UNKNOWN
    if not _is_trusted(peer, trusted_proxies):
        return peer
    for hop in reversed(request.headers.get("x-forwarded-for", "").split(",")):
        address = _parse(hop.strip())
        if address is None:
            return peer
        if not _is_trusted(str(address), trusted_proxies):
            return str(address)
    return peer


def limited_network(address: str) -> str:
    """
    Return whom a limit by address counts: an IPv4 address, or an IPv6 network of 64 bits.

    One IPv6 subscriber is given at least a /64 (RFC 6177), so single addresses would limit nobody.
    """
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((parsed, 64), strict=False))
    return str(parsed or address)


def _is_trusted(address: str, trusted_proxies: Sequence[Network]) -> bool:
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in trusted_proxies)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if isinstance(mapped, IPv4Address) else address
