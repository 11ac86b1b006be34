"""The body of an upload: one file and a few fields, streamed (RFC 7578)."""

import secrets
from collections.abc import Callable, Iterator, Mapping

from s3edge.client.sources import Content, read_exactly


CHUNK_BYTES = 64 * 1024
"""How much of a file is in memory at once."""

Progress = Callable[[int, int], object]
"""Told how many bytes of the file have been sent, and how many there are."""


class MultipartBody:
    """
    A form with a file, which can be sent again.

    Progress never goes back: while an upload is repeated, it stands until the repeat has come further.

    Args:
        content: The file.
        fields: The other fields, by name.
        on_progress: Told how far the file has got.
    """

    def __init__(
        self, content: Content, fields: Mapping[str, str], on_progress: Progress | None
    ) -> None:
        self._content = content
        self._on_progress = on_progress
        self._reported = -1
        self._boundary = secrets.token_hex(16)
        self._head = (
            "".join(
                f'--{self._boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
                for name, value in fields.items()
            ).encode()
            + (
                f"--{self._boundary}\r\n"
                'Content-Disposition: form-data; name="file"; filename="image"\r\n'
                f"Content-Type: {content.content_type}\r\n\r\n"
            ).encode()
        )
        self._tail = f"\r\n--{self._boundary}--\r\n".encode()

    @property
    def content_type(self) -> str:
        """What the request's header says."""
        return f"multipart/form-data; boundary={self._boundary}"

    @property
    def size_bytes(self) -> int:
        """How long the whole body is."""
        return len(self._head) + self._content.size_bytes + len(self._tail)

    def chunks(self) -> Iterator[bytes]:
        """Yield the body from its beginning."""
        yield self._head
        with self._content.open() as file:
            yield from read_exactly(file, self._content.size_bytes, CHUNK_BYTES)
        yield self._tail

    def sent(self, total_bytes: int) -> None:
        """Take note that so many bytes of this attempt have been handed to the network."""
        size_bytes = self._content.size_bytes
        of_file = min(max(0, total_bytes - len(self._head)), size_bytes)
        if self._on_progress is not None and of_file > self._reported:
            self._reported = of_file
            self._on_progress(of_file, size_bytes)
