"""
Every port in memory: the reference implementation, a test double, and the ``memory:`` adapters.

Nothing outlives the process. Each passes the same contract suite as the real adapters.
"""

from s3edge.memory.authenticator import MemoryAuthenticator
from s3edge.memory.backend import ThresholdBackend
from s3edge.memory.database import MemoryDatabase
from s3edge.memory.rate_limiter import MemoryRateLimiter
from s3edge.memory.storage import MemoryObjectStorage


__all__ = [
    "MemoryAuthenticator",
    "MemoryDatabase",
    "MemoryObjectStorage",
    "MemoryRateLimiter",
    "ThresholdBackend",
]
