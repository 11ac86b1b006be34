"""
Which addresses are the public Internet's, for clients that fetch what somebody else named.

The check is made of the very address that a socket is about to be connected to, so a name that resolves
to another one the second time, a number in another spelling, or a private address in an IPv6 wrapping
gets no further than a plain one.
"""

import errno
import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any


_NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are the IPv4 address that is reached."""

_OTHERS: Collection[IPv4Network | IPv6Network] = (
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv4Network("168.63.129.16/32"),
    IPv6Network("fec0::/10"),
    IPv6Network("3fff::/20"),
)
"""
What ``ipaddress`` takes for global, in some of its versions.

Protocol assignments (RFC 6890), relays of 6to4 (RFC 7526), the host of every virtual machine at Azure
(learn.microsoft.com, "What is IP address 168.63.129.16?"), site-local addresses (RFC 3879), documentation
(RFC 9637).
"""

_LAST_32_BITS = 0xFFFFFFFF


class PrivateAddressError(OSError):
    """A name led to an address that is not public; nothing was sent there."""

    def __init__(self) -> None:
        # The same text for each address of a name, so that the connector passes the error on as it is.
        super().__init__(errno.EACCES, "the address is not public")


def is_public(address: str) -> bool:
    """
    Tell whether an address is one of the public Internet's.

    Those of IANA's special-purpose registries are not (private, shared, loopback, link-local, reserved),
    nor are multicast ones, nor what embeds one of them (IPv4-mapped, 6to4, NAT64).

    Args:
        address: As ``getaddrinfo`` gives it, with a zone or without.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return _is_public(parsed)


def public_socket(info: tuple[Any, ...]) -> socket.socket:
    """
    Return a socket for an entry of ``getaddrinfo``'s answer, if it leads to a public address.

    Raises:
        PrivateAddressError: It does not.
    """
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise PrivateAddressError
    return socket.socket(family, kind, protocol)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        embedded = _embedded(address)
        if embedded is not None:
            return _is_public(embedded)
    if any(address in network for network in _OTHERS):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that is reached by way of an IPv6 one, if it is of such a kind."""
    if address in _NAT64:
        return IPv4Address(int(address) & _LAST_32_BITS)
    return address.ipv4_mapped or address.sixtofour
