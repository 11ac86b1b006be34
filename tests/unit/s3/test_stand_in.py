"""The stand-in of an object store is a process that comes and goes."""

import os
import urllib.request
from typing import Any

import pytest
from botocore.config import Config
from botocore.session import Session

from s3edge.testing.standins.object_store import ObjectStoreProcess


def test_it_shows_what_is_there_and_goes_away() -> None:
    """Objects and unfinished uploads are listed; after the stop neither process nor port is left."""
    with ObjectStoreProcess() as store:
        endpoint, pid = store.endpoint, store.pid
        bucket, other = store.create_bucket(is_public=True), store.create_bucket("named-bucket")
        client: Any = Session().create_client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="y",
            config=Config(s3={"addressing_style": "path"}),
        )
        client.put_object(Bucket=bucket.name, Key="a/b", Body=b"content")
        client.create_multipart_upload(Bucket=bucket.name, Key="c")
        client.close()
        assert sorted(bucket.keys()) == ["a/b", "c (unfinished)"]
        assert bucket.read("a/b") == b"content"
        with urllib.request.urlopen(f"{bucket.public_base_url}/a/b") as answer:
            assert answer.read() == b"content"
        assert other.keys() == []
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(endpoint)
    with pytest.raises(RuntimeError):
        store.create_bucket()
