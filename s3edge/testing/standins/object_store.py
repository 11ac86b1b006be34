"""
A store that speaks S3, for tests: moto's server (the ``stand-ins`` extra) as a process of its own.

It starts in about two seconds and ends with its ``with`` block, or with the process that started it::

    with ObjectStoreProcess() as store:
        bucket = store.create_bucket()
        settings = {"S3EDGE_STORAGE": "r2", **bucket.r2_settings()}

It is more lenient than R2: it verifies no signature, and takes headers that R2 refuses.
"""

import subprocess
import sys
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from attrs import define, field, frozen
from botocore.config import Config
from botocore.session import Session


STOP_TIMEOUT_S = 10

ACCESS_KEY_ID = "stand-in-access-key-id"
SECRET_ACCESS_KEY = "stand-in-secret"  # noqa: S105 - it opens nothing

_SERVER = "s3edge.testing.standins.object_store_server"


@frozen
class StandInBucket:
    """
    One bucket of a stand-in.

    Attributes:
        endpoint: Where the store is.
        name: The bucket's.
    """

    endpoint: str
    name: str
    _client: Any = field(repr=False)

    @property
    def public_base_url(self) -> str:
        """Where anybody reads a public bucket's objects, by another host's name than the endpoint's."""
        return f"{self.endpoint.replace('127.0.0.1', 'localhost')}/{self.name}"

    def keys(self) -> Collection[str]:
        """Return the key of each object, and those of unfinished uploads, which say so."""
        objects = self._client.list_objects_v2(Bucket=self.name)
        uploads = self._client.list_multipart_uploads(Bucket=self.name)
        return [
            *(entry["Key"] for entry in objects.get("Contents", [])),
            *(f"{entry['Key']} (unfinished)" for entry in uploads.get("Uploads", [])),
        ]

    def read(self, key: str) -> bytes:
        """Return an object's bytes."""
        content: bytes = self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def r2_settings(self) -> Mapping[str, str]:
        """Return what the environment says of an R2 bucket, for this one."""
        return {
            "R2_ENDPOINT": self.endpoint,
            "R2_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "R2_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
            "R2_BUCKET": self.name,
        }


@define
class ObjectStoreProcess:
    """
    A running store; a context manager.

    Attributes:
        endpoint: Where it is reached, once it was started; another one after each start.
        process: The process, once it was started.
    """

    endpoint: str = ""
    process: subprocess.Popen[str] | None = None
    _client: Any = field(init=False, default=None, repr=False)

    def __enter__(self) -> Self:
        """Start it, and return when it answers."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it, if it runs."""
        self.stop()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._started().pid

    def start(self) -> None:
        """Start it, empty, on a free port."""
        self.process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        printed = self.process.stdout
        assert printed is not None
        port = printed.readline().strip()
        if not port:
            self.stop()
            message = "the stand-in of the object store did not start; is moto[server] installed?"
            raise RuntimeError(message)
        self.endpoint = f"http://127.0.0.1:{port}"
        self._client = Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET_ACCESS_KEY,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def stop(self) -> None:
        """End it and everything in it."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self.process is not None:
            process, self.process = self.process, None
            # Its standard input ends, and it with that.
            process.communicate(timeout=STOP_TIMEOUT_S)

    def create_bucket(self, name: str | None = None, *, is_public: bool = False) -> StandInBucket:
        """
        Return a new bucket.

        Args:
            name: By default a fresh one.
            is_public: Whether anybody may read its objects, as behind R2's custom domain.
        """
        self._started()
        bucket = StandInBucket(self.endpoint, name or f"bucket-{uuid4()}", self._client)
        self._client.create_bucket(Bucket=bucket.name)
        if is_public:
            self._client.put_bucket_acl(Bucket=bucket.name, ACL="public-read")
        return bucket

    def _started(self) -> subprocess.Popen[str]:
        if self.process is None:
            message = "the store was not started"
            raise RuntimeError(message)
        return self.process
