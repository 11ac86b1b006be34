"""Segments an image through a server's HTTP API."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx
from attrs import frozen

from s3edge.cli.options import Failed
from s3edge.rules.images import MAX_IMAGE_BYTES, SNIFF_BYTES, sniff


POLL_WAIT_S = 20
"""Asked of the server in one long poll; below its own limit of 30."""

MAX_WAIT_S = 15 * 60.0
"""A task ends by then: the server's default deadline."""

_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_RETRIED_STATUSES = frozenset({429, 502, 503, 504})
_MAX_ATTEMPTS = 5
_MAX_PAUSE_S = 30.0
_READ_BYTES = 64 * 1024

Progress = Callable[[str, float], None]
"""Told the stage and how much of it is done, from 0 to 1."""


@frozen
class SegmentedImage:
    """
    What the server made of an image.

    Attributes:
        result: The result's ``data``.
        mask_png: The mask.
    """

    result: dict[str, Any]
    mask_png: bytes


class Remote:
    """
    A server, called with one user's token.

    Args:
        base_url: Where the server is.
        token: The access token.
    """

    def __init__(self, base_url: str, token: str) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise Failed(f"{base_url!r} is no address; write http://{base_url}")
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}
        # Without the token as a default: media URLs may lead to another host.
        self._http = httpx.Client(timeout=_TIMEOUT)

    def __enter__(self) -> Self:
        """Return the server."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self._http.close()

    def segment(self, image: Path, prompt: str, progress: Progress) -> SegmentedImage:
        """
        Upload an image, have it segmented, wait, and download the mask.

        Raises:
            Failed: Says what the server or the network refused.
        """
        uploaded = self._upload(image, progress)
        accepted = self._call(
            "POST",
            "/api/v1/segment",
            json={"image_url": uploaded["image_url"], "text_prompt": prompt},
            # A repeat after a lost answer is not charged again.
            headers={"Idempotency-Key": str(uuid4())},
        )
        self._wait(accepted["task_id"], progress)
        result = self._call("GET", f"/api/v1/results/{accepted['task_id']}")
        return SegmentedImage(result, self._download(result["mask_image_url"]))

    def _upload(self, image: Path, progress: Progress) -> dict[str, Any]:
        size_bytes = image.stat().st_size
        if size_bytes > MAX_IMAGE_BYTES:
            raise Failed(f"{image} is larger than {MAX_IMAGE_BYTES // 1024**2} MiB")
        with image.open("rb") as file:
            content_type = sniff(file.read(SNIFF_BYTES))
        if content_type is None:
            raise Failed(f"{image} is not a PNG, JPEG or WebP image")
        boundary = uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="image"\r\n'
            f"Content-Type: {content_type}\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()

        def body() -> Iterator[bytes]:
            sent = 0
            yield head
            with image.open("rb") as file:
                while chunk := file.read(_READ_BYTES):
                    yield chunk
                    sent += len(chunk)
                    progress("uploading", sent / size_bytes)
            yield tail

        return self._call(
            "POST",
            "/api/v1/upload",
            content=body,
            headers={
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Content-Length": str(len(head) + size_bytes + len(tail)),
            },
        )

    def _wait(self, task_id: str, progress: Progress) -> None:
        ends_at = time.monotonic() + MAX_WAIT_S
        progress("segmenting", 0.0)
        while time.monotonic() < ends_at:
            task = self._call("GET", f"/api/v1/tasks/{task_id}", params={"wait": POLL_WAIT_S})
            if task["status"] == "done":
                progress("segmenting", 1.0)
                return
            if task["status"] == "error":
                raise Failed(f"the segmentation failed and was refunded: {task['error_message']}")
        raise Failed(f"task {task_id} is not done after {MAX_WAIT_S:g} seconds; look again later")

    def _download(self, url: str) -> bytes:
        try:
            answer = self._http.get(url)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise Failed(f"the mask could not be downloaded: {type(error).__name__}") from None
        return answer.content

    def _call(
        self,
        method: str,
        path: str,
        *,
        content: Callable[[], Iterator[bytes]] | None = None,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Return the ``data`` of an answer; passing faults are tried again."""
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            last = attempt == _MAX_ATTEMPTS
            try:
                answer = self._http.request(
                    method,
                    self._base_url + path,
                    headers=self._headers | (headers or {}),
                    content=None if content is None else content(),
                    **options,
                )
            except httpx.TransportError as error:
                nobody_there = isinstance(error, httpx.ConnectError) and attempt > 1
                if last or nobody_there:
                    raise Failed(
                        f"cannot reach {self._base_url} ({type(error).__name__});"
                        " is the server running? Start one with: s3edge dev"
                    ) from None
                time.sleep(min(2.0**attempt / 4, _MAX_PAUSE_S))
                continue
            if answer.status_code not in _RETRIED_STATUSES or last:
                return _data_of(answer)
            time.sleep(_pause_s(answer))
        raise AssertionError  # the last attempt has returned or raised


def _data_of(answer: httpx.Response) -> dict[str, Any]:
    try:
        envelope = answer.json()
        if envelope["success"]:
            data: dict[str, Any] = envelope["data"]
            return data
        error = envelope["error"]
        message = f"{error['message']} ({error['code']})"
    except (ValueError, KeyError, TypeError):
        message = f"the server answered {answer.status_code} and nothing that can be read"
    raise Failed(message)


def _pause_s(answer: httpx.Response) -> float:
    seconds = answer.headers.get("Retry-After", "")
    return min(float(seconds) if seconds.isdecimal() else 1.0, _MAX_PAUSE_S)
