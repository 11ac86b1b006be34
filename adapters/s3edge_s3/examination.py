"""What the doctor looks at: each right that the key needs, and the URLs that are handed out."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus

import anyio

from s3edge.ports import Finding
from s3edge_aiohttp import Answer, HttpClient, NoAnswerError
from s3edge_s3.access_keys import NoKeyError
from s3edge_s3.answers import error_code, upload_id
from s3edge_s3.faults import Faults
from s3edge_s3.multipart import upload_query
from s3edge_s3.requests import BucketRequests


FETCH_TIMEOUT_S = 5.0

CLEAN_UP_S = 4.0

_CONTENT = b"s3edge doctor"
_OTHER_CONTENT = b"s3edge doctor again"


class Examination:
    """
    Puts a small object, looks at it in every way the gateway does, and removes it.

    Args:
        requests: To the bucket.
        client: Fetches the object as anybody would.
        faults: Knows what to do about an answer.
        url_for: Makes the URL of a key.
    """

    def __init__(
        self,
        requests: BucketRequests,
        client: HttpClient,
        faults: Faults,
        url_for: Callable[[str], str],
    ) -> None:
        self._requests = requests
        self._client = client
        self._faults = faults
        self._url_for = url_for

    async def findings(self, key: str) -> AsyncIterator[Finding]:
        """Yield what is found out with an object under this key, which nobody else has."""
        removed = Finding("bucket: delete", ok=False, message="not reached")
        try:
            stored = await self._finding("bucket: put", "an object was put", self._put, key)
            yield stored
            if stored.ok:
                for name, message, look in (
                    ("bucket: first put wins", "a second put was refused", self._put_again),
                    ("bucket: uploads in parts", "one was begun and aborted", self._begin_upload),
                    ("bucket: get", "the object was read", self._get),
                    ("image URLs", "the object was read by its URL", self._fetch),
                ):
                    yield await self._finding(name, message, look, key)
        finally:
            with anyio.move_on_after(CLEAN_UP_S, shield=True):
                removed = await self._finding(
                    "bucket: delete", "the object was deleted", self._delete, key
                )
        if stored.ok:
            yield removed

    async def _finding(
        self, name: str, message: str, look: Callable[[str], Awaitable[str | None]], key: str
    ) -> Finding:
        try:
            complaint = await look(key)
        except NoKeyError as error:
            lent = self._faults.names.key_pair
            complaint = f"{error.reason} and was not renewed; set {lent}, or see who lends them"
        except NoAnswerError as error:
            endpoint = self._faults.names.endpoint
            complaint = f"{error.reason}; check {endpoint}, and that this machine may reach it"
        return Finding(name, ok=complaint is None, message=complaint or message)

    async def _put(self, key: str) -> str | None:
        answer = await self._send_put(key, _CONTENT)
        return None if answer.status == HTTPStatus.OK else self._complaint(answer)

    async def _put_again(self, key: str) -> str | None:
        answer = await self._send_put(key, _OTHER_CONTENT)
        if answer.status == HTTPStatus.PRECONDITION_FAILED:
            return None
        if answer.status == HTTPStatus.OK:
            return (
                "the server ignores If-None-Match, so a repeated put replaces an object; use R2, S3"
                " or a MinIO of 2024 or later"
            )
        return self._complaint(answer)

    async def _begin_upload(self, key: str) -> str | None:
        begun = await self._requests.send("POST", key, query="?uploads=")
        if begun.status != HTTPStatus.OK:
            return self._complaint(begun)
        began = upload_id(begun)
        if began is None:
            return f"the answer is not S3's; check {self._faults.names.endpoint}"
        aborted = await self._requests.send("DELETE", key, query=upload_query(began))
        is_gone = aborted.status in (HTTPStatus.NO_CONTENT, HTTPStatus.OK)
        return None if is_gone else self._complaint(aborted)

    async def _get(self, key: str) -> str | None:
        answer = await self._requests.send("GET", key)
        if answer.status != HTTPStatus.OK:
            return self._complaint(answer)
        if answer.body != _CONTENT:
            return f"other bytes came back than were put; check {self._faults.names.endpoint}"
        return None

    async def _fetch(self, key: str) -> str | None:
        names = self._faults.names
        host = names.public_base_url if self._is_public(key) else names.endpoint
        try:
            answer = await self._client.fetch("GET", self._url_for(key), timeout_s=FETCH_TIMEOUT_S)
        except NoAnswerError:
            return f"the host of the image URLs cannot be reached; check {host}"
        if answer.status == HTTPStatus.OK and answer.body == _CONTENT:
            return None
        if not self._is_public(key):
            return self._complaint(answer)
        what = "other bytes" if answer.status == HTTPStatus.OK else str(answer.status)
        return (
            f"it answered {what}; connect the domain to this bucket and allow public reading, or"
            f" correct {host}, or leave it unset for signed URLs"
        )

    async def _delete(self, key: str) -> str | None:
        answer = await self._requests.send("DELETE", key)
        is_gone = answer.status in (HTTPStatus.NO_CONTENT, HTTPStatus.OK)
        return None if is_gone else self._complaint(answer)

    async def _send_put(self, key: str, content: bytes) -> Answer:
        return await self._requests.send(
            "PUT",
            key,
            headers={"Content-Type": "text/plain", "If-None-Match": "*"},
            body=content,
            body_sha256=hashlib.sha256(content).hexdigest(),
        )

    def _is_public(self, key: str) -> bool:
        return "?" not in self._url_for(key)

    def _complaint(self, answer: Answer) -> str:
        code = error_code(answer.body)
        return f"{answer.status} {code}: {self._faults.fix_of(answer.status, code)}"
