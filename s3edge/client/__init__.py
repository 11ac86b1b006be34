"""
The Python SDK: upload an image, have it segmented, read what came of it.

``Client`` waits, ``AsyncClient`` is awaited on asyncio; they have the same calls::

    with Client() as client:  # S3EDGE_BASE_URL, S3EDGE_TOKEN
        image = client.upload("cat.jpg")
        task = client.segment(image, "the cat")
        result = task.wait(timeout=60)
        result.mask.save("mask.png")

``pip install s3edge[client]`` is all it needs; masks as arrays and polygons come with ``s3edge[masks]``.
"""

from s3edge.client.aio import AsyncClient
from s3edge.client.aio_handles import (
    AsyncListedResult,
    AsyncMask,
    AsyncResult,
    AsyncResults,
    AsyncTask,
)
from s3edge.client.aio_raw import AsyncRawClient
from s3edge.client.errors import (
    AuthInvalid,
    AuthRequired,
    ConfigurationError,
    ConnectionFailed,
    FileTooLarge,
    Forbidden,
    IdempotencyKeyReused,
    InferenceFailed,
    InsufficientCredits,
    InternalError,
    InvalidRequest,
    MaskNotReady,
    MethodNotAllowed,
    ModelNotLoaded,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    S3EdgeError,
    ServiceUnavailable,
    TaskError,
    TaskFailed,
    TimedOut,
    UnreadableAnswer,
    WaitTimeout,
)
from s3edge.client.models import Account, Health, Page, RawResponse, TaskState, UploadedImage
from s3edge.client.session import Timeout
from s3edge.client.sources import ImageSource
from s3edge.client.surroundings import Surroundings
from s3edge.client.sync import Client
from s3edge.client.sync_handles import ListedResult, Mask, Result, Results, Task
from s3edge.client.sync_raw import RawClient


__all__ = [
    "Account",
    "AsyncClient",
    "AsyncListedResult",
    "AsyncMask",
    "AsyncRawClient",
    "AsyncResult",
    "AsyncResults",
    "AsyncTask",
    "AuthInvalid",
    "AuthRequired",
    "Client",
    "ConfigurationError",
    "ConnectionFailed",
    "FileTooLarge",
    "Forbidden",
    "Health",
    "IdempotencyKeyReused",
    "ImageSource",
    "InferenceFailed",
    "InsufficientCredits",
    "InternalError",
    "InvalidRequest",
    "ListedResult",
    "Mask",
    "MaskNotReady",
    "MethodNotAllowed",
    "ModelNotLoaded",
    "NotFound",
    "Page",
    "PayloadTooLarge",
    "RateLimited",
    "RawClient",
    "RawResponse",
    "Result",
    "Results",
    "S3EdgeError",
    "ServiceUnavailable",
    "Surroundings",
    "Task",
    "TaskError",
    "TaskFailed",
    "TaskState",
    "TimedOut",
    "Timeout",
    "UnreadableAnswer",
    "UploadedImage",
    "WaitTimeout",
]
