"""The only part of the client that knows an HTTP library: drivers, and ways to applications."""

from s3edge.client.drivers.applications import async_transport_to, transport_to
from s3edge.client.drivers.connections import Application, AsyncTransport, Transport
from s3edge.client.drivers.network import AsyncDriver, Driver


__all__ = [
    "Application",
    "AsyncDriver",
    "AsyncTransport",
    "Driver",
    "Transport",
    "async_transport_to",
    "transport_to",
]
