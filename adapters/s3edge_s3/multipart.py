"""
An object that is uploaded in parts and appears when it is complete.

https://developers.cloudflare.com/r2/objects/multipart-objects/
https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote
from xml.sax.saxutils import escape

from s3edge_aiohttp import Answer
from s3edge_s3.answers import etag, tells_md5, upload_id
from s3edge_s3.faults import Faults
from s3edge_s3.finishing import finished
from s3edge_s3.parts import Part
from s3edge_s3.requests import BucketRequests


class MultipartUpload:
    """
    One upload of one object: ``create``, ``add`` each part, ``complete``; else ``abort``.

    Args:
        requests: To the bucket.
        faults: Makes the errors.
        key: Of the object.
    """

    def __init__(self, requests: BucketRequests, faults: Faults, key: str) -> None:
        self._requests = requests
        self._faults = faults
        self._key = key
        self._upload_id: str | None = None
        self._etags: list[str] = []
        self._md5s = hashlib.md5(usedforsecurity=False)

    @property
    def is_open(self) -> bool:
        """Whether the store keeps parts of it, as far as is known."""
        return self._upload_id is not None

    @property
    def expected_etag(self) -> str:
        """The ETag that the object must have: the MD5 of the parts' MD5s, and their number."""
        return f"{self._md5s.hexdigest()}-{len(self._etags)}"

    async def create(self, headers: Mapping[str, str]) -> None:
        """
        Begin; the object will have these headers.

        Raises:
            NoAnswerError: As ``BucketRequests.send``.
            EdgeError: ``SERVICE_UNAVAILABLE``.
        """
        # Cancelled in the middle, an upload would stay whose id nobody knows.
        await finished(lambda: self._create(headers))

    async def add(self, part: Part) -> None:
        """
        Send the next part.

        Raises:
            NoAnswerError: As ``BucketRequests.send``.
            EdgeError: ``SERVICE_UNAVAILABLE``; also when the store got other bytes than were sent.
        """
        number = len(self._etags) + 1
        answer = await self._requests.send(
            "PUT",
            self._key,
            query=f"{upload_query(self._named)}&partNumber={number}",
            body=part.body,
            body_sha256=part.sha256,
        )
        if answer.status != HTTPStatus.OK:
            raise self._faults.refusal(answer)
        if not etag(answer):
            raise self._faults.nonsense("the storage took a part and named no ETag")
        if tells_md5(answer) and etag(answer) != part.md5.hex():
            raise self._faults.nonsense("the storage has other bytes of a part than were sent")
        self._etags.append(etag(answer))
        self._md5s.update(part.md5)

    async def complete(self) -> Answer:
        """
        Make the object appear, unless there is one under its key.

        Raises:
            NoAnswerError: As ``BucketRequests.send``.
        """
        parts = "".join(
            f'<Part><PartNumber>{number}</PartNumber><ETag>"{escape(tag)}"</ETag></Part>'
            for number, tag in enumerate(self._etags, start=1)
        )
        namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
        document = (
            f'<CompleteMultipartUpload xmlns="{namespace}">{parts}</CompleteMultipartUpload>'
        ).encode()
        answer = await self._requests.send(
            "POST",
            self._key,
            query=upload_query(self._named),
            headers={"Content-Type": "application/xml", "If-None-Match": "*"},
            body=document,
            body_sha256=hashlib.sha256(document).hexdigest(),
        )
        if answer.status == HTTPStatus.OK and etag(answer):
            self._upload_id = None
        return answer

    async def abort(self) -> None:
        """
        Have the store forget the parts of an open upload.

        Raises:
            NoAnswerError: As ``BucketRequests.send``.
            EdgeError: ``SERVICE_UNAVAILABLE``.
        """
        answer = await self._requests.send("DELETE", self._key, query=upload_query(self._named))
        # Not found: it was completed or aborted, by a request whose answer was lost.
        if answer.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.OK, HTTPStatus.NOT_FOUND):
            raise self._faults.refusal(answer)

    @property
    def _named(self) -> str:
        if self._upload_id is None:
            raise RuntimeError("the upload is not open")
        return self._upload_id

    async def _create(self, headers: Mapping[str, str]) -> None:
        answer = await self._requests.send("POST", self._key, query="?uploads=", headers=headers)
        if answer.status != HTTPStatus.OK:
            raise self._faults.refusal(answer)
        self._upload_id = upload_id(answer)
        if self._upload_id is None:
            raise self._faults.nonsense("the storage began an upload and did not name it")


def upload_query(named: str) -> str:
    """Return the query that names an upload, with its ``?``."""
    return f"?uploadId={quote(named, safe='-_.~')}"
