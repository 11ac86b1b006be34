"""A stream cut into parts of equal length, hashed while they arrive."""

import hashlib
from collections.abc import AsyncIterable

from attrs import field, frozen


PART_BYTES = 5 * 1024 * 1024
"""
The least that a part may have; all but the last must have the same length.

https://developers.cloudflare.com/r2/objects/multipart-objects/
"""


@frozen
class Part:
    """
    A stretch of an object.

    Attributes:
        body: Its bytes; ``PART_BYTES`` of them unless it is the last.
        md5: Digest of the body; what the store's ETag must say.
        sha256: Digest of the body in hex; signed, so that the store refuses any other.
        is_last: Whether the stream has ended well after it.
    """

    body: bytes = field(repr=False)
    md5: bytes
    sha256: str
    is_last: bool


class PartCutter:
    """
    Cuts a stream; holds one part at a time, and what is left of the chunk that went over it.

    Args:
        chunks: The stream; what it raises comes out of ``advance``.
    """

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = aiter(chunks)
        self._rest = memoryview(b"")
        self._part: Part | None = None

    @property
    def part(self) -> Part:
        """The part that ``advance`` cut last. Whoever keeps it keeps its bytes in memory."""
        if self._part is None:
            raise RuntimeError("no part was cut yet")
        return self._part

    async def advance(self) -> None:
        """Let go of this part and cut the next; there is one more unless this one is the last."""
        self._part = None
        body = bytearray()
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        is_last = False
        # A full part is the last one only if nothing follows, so that is looked for as well.
        while True:
            taken = self._rest[: PART_BYTES - len(body)]
            self._rest = self._rest[len(taken) :]
            body += taken
            md5.update(taken)
            sha256.update(taken)
            if self._rest:
                break
            chunk = await anext(self._chunks, None)
            if chunk is None:
                is_last = True
                break
            self._rest = memoryview(chunk)
        self._part = Part(bytes(body), md5.digest(), sha256.hexdigest(), is_last)
