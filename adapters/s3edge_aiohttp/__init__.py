"""
The HTTP client that adapters share: a pool of connections, and failures that say what they mean.

Not an adapter of a port: those that speak HTTP (Supabase, S3, the GPU server) stand on it, and turn
what it raises into an ``EdgeError`` of their own. docs/design.md has what it was
measured against httpx. Needs nothing of the environment; proxies set there are not used.
"""

from s3edge_aiohttp.client import (
    Answer,
    AnswerStream,
    ForbiddenAddressError,
    HttpClient,
    LateAnswerError,
    NoAnswerError,
)


__all__ = [
    "Answer",
    "AnswerStream",
    "ForbiddenAddressError",
    "HttpClient",
    "LateAnswerError",
    "NoAnswerError",
]
