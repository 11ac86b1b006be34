"""
What the core asks of the world, as Protocols.

Each method says what its callers guarantee and what implementations must do; every "must" names the
contract test in ``s3edge.testing`` that checks it. Vendor errors never cross a port: implementations
turn them into an ``EdgeError``, ``SERVICE_UNAVAILABLE`` when they are down or too slow.
"""

from s3edge.ports.authenticator import Authenticator
from s3edge.ports.checked import Checked, Examinable, Finding, Limited
from s3edge.ports.clock import Clock, Ids
from s3edge.ports.database import AnnouncesEnds, Database, EndNews
from s3edge.ports.inference_backend import HasCapacity, InferenceBackend
from s3edge.ports.object_storage import ObjectStorage
from s3edge.ports.rate_limiter import RateLimiter
from s3edge.ports.task_queue import INLINE, TaskQueue
from s3edge.ports.wiring import MissingPartError, Wiring


__all__ = [
    "INLINE",
    "AnnouncesEnds",
    "Authenticator",
    "Checked",
    "Clock",
    "Database",
    "EndNews",
    "Examinable",
    "Finding",
    "HasCapacity",
    "Ids",
    "InferenceBackend",
    "Limited",
    "MissingPartError",
    "ObjectStorage",
    "RateLimiter",
    "TaskQueue",
    "Wiring",
]
