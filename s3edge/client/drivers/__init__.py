"""The only part of the client that knows an HTTP library: drivers, and ways to applications."""

from s3edge.client.drivers.applications import async_transport_to, transport_to
from s3edge.client.drivers.network import AsyncDriver, AsyncTransport, Driver, Transport


__all__ = [
    "AsyncDriver",
    "AsyncTransport",
    "Driver",
    "Transport",
    "async_transport_to",
    "transport_to",
]
