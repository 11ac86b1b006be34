"""
What an S3 server's answers say.

Their XML is read by patterns that match a bounded text, never parsed: whoever answers may be anybody.
https://developers.cloudflare.com/r2/api/error-codes/
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from xml.sax.saxutils import unescape

from attrs import evolve, frozen

from s3edge_aiohttp import Answer


MARK_HEADER = "x-amz-meta-s3edge-put"
"""Names the put that made an object, so that a put never takes back another's."""

UNKNOWN_CODE = "no S3 error code"

MAX_DOCUMENT_BYTES = 64 * 1024
"""An S3 server's documents that are read here are shorter."""

_ERROR_DOCUMENT = re.compile(rb"\s*(<\?xml[^<>]{0,200}\?>)?\s*<Error[\s>]")
_CODE = re.compile(rb"<Code>([A-Za-z0-9._-]{1,64})</Code>")
_UPLOAD_ID = re.compile(rb"<UploadId>([^<>]{1,4096})</UploadId>")
_ETAG = re.compile(rb"<ETag>([^<>]{1,256})</ETag>")
_MD5_FORM = re.compile(r"[0-9a-f]{32}(-[1-9][0-9]{0,4})?")

_STATUSES = {
    "ConditionalRequestConflict": HTTPStatus.CONFLICT,
    "InternalError": HTTPStatus.INTERNAL_SERVER_ERROR,
    "NoSuchUpload": HTTPStatus.NOT_FOUND,
    "PreconditionFailed": HTTPStatus.PRECONDITION_FAILED,
    "ServiceUnavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "SlowDown": HTTPStatus.SERVICE_UNAVAILABLE,
}


@frozen
class ObjectHead:
    """
    What HEAD says of an object.

    Attributes:
        size_bytes: Its length.
        content_type: As it was stored.
        mark: Names the put that made it; ``""`` when it is not one of ours.
    """

    size_bytes: int
    content_type: str
    mark: str


def error_code(answer_body: bytes) -> str:
    """Return the S3 error code of an error document, or ``UNKNOWN_CODE``."""
    found = _CODE.search(answer_body[:MAX_DOCUMENT_BYTES])
    return UNKNOWN_CODE if found is None else found[1].decode("ascii")


def is_absence(answer: Answer) -> bool:
    """Return whether an answer says that the object is missing, and not its bucket."""
    return answer.status == HTTPStatus.NOT_FOUND and error_code(answer.body) == "NoSuchKey"


def with_honest_status(answer: Answer) -> Answer:
    """
    Return an answer with the status that it means.

    CompleteMultipartUpload may begin to answer 200 and then send an error document.
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
    """
    if answer.status != HTTPStatus.OK or not _ERROR_DOCUMENT.match(
        answer.body[:MAX_DOCUMENT_BYTES]
    ):
        return answer
    status = _STATUSES.get(error_code(answer.body), HTTPStatus.BAD_REQUEST)
    return evolve(answer, status=int(status))


def upload_id(answer: Answer) -> str | None:
    """Return the id of the multipart upload that CreateMultipartUpload began."""
    found = _UPLOAD_ID.search(answer.body[:MAX_DOCUMENT_BYTES])
    return None if found is None else _text(found[1])


def etag(answer: Answer) -> str:
    """Return the ETag in the header, or in CompleteMultipartUpload's document; ``""`` if in neither."""
    found = _ETAG.search(answer.body[:MAX_DOCUMENT_BYTES])
    in_document = "" if found is None else _text(found[1])
    return (answer.headers.get("etag") or in_document).strip('"')


def tells_md5(answer: Answer) -> bool:
    """
    Return whether the ETag is made of MD5 hashes, so that it can be compared.

    It is not for objects encrypted by a key service, although it looks so.
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
    """
    encryption = answer.headers.get("x-amz-server-side-encryption", "")
    return not encryption.startswith("aws:kms") and bool(_MD5_FORM.fullmatch(etag(answer)))


def object_head(headers: Mapping[str, str]) -> ObjectHead | None:
    """Return what the headers of a HEAD's answer say, or ``None`` when no S3 server wrote them."""
    length = headers.get("content-length", "")
    if "etag" not in headers or not (length.isascii() and length.isdecimal()):
        return None
    content_type = headers.get("content-type", "application/octet-stream")
    return ObjectHead(int(length), content_type, headers.get(MARK_HEADER, ""))


def _text(markup: bytes) -> str:
    return unescape(markup.decode("utf-8", "replace"), {"&quot;": '"', "&apos;": "'", "&#34;": '"'})
