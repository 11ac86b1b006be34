"""Whom a limit by address counts."""

import pytest

from s3edge.web.addresses import limited_network


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
    ],
)
def test_a_subscriber_is_counted_as_one(address: str, counted: str) -> None:
    """IPv4 by address, IPv6 by the network that one subscriber is given."""
    assert limited_network(address) == counted
