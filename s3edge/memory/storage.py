"""Objects in memory."""

import secrets
from collections.abc import AsyncIterable, AsyncIterator, Sequence

from anyio.lowlevel import checkpoint

from s3edge.errors import Code, EdgeError
from s3edge.ports import Clock
from s3edge.rules.media_urls import MediaUrls
from s3edge.values import StoredObject
from s3edge.web.http import Route
from s3edge.web.media import media_route


class MemoryObjectStorage:
    """
    Holds objects in a dictionary, and serves them by signed URLs.

    Args:
        base_url: Where the app that serves them is reached.
        clock: Tells when a URL has expired.
    """

    def __init__(self, base_url: str, clock: Clock) -> None:
        self._objects: dict[str, tuple[StoredObject, bytes]] = {}
        self._clock = clock
        self._urls = MediaUrls(base_url, secrets.token_bytes(32))

    def routes(self) -> Sequence[Route]:
        """Return the route that answers this storage's URLs."""
        return [media_route(self, self._urls, self._clock)]

    def keys(self) -> Sequence[str]:
        """Return every key that holds an object."""
        return list(self._objects)

    async def put(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str,
        size_bytes: int | None = None,  # noqa: ARG002 - nothing is reserved in advance
    ) -> StoredObject:
        """Implement ``ObjectStorage``."""
        content = bytearray()
        async for chunk in chunks:
            content += chunk
        stored = StoredObject(key, len(content), content_type)
        return self._objects.setdefault(key, (stored, bytes(content)))[0]

    def url_for(self, key: str) -> str:
        """Implement ``ObjectStorage``."""
        return self._urls.url_for(key, self._clock.now())

    def key_of(self, url: str) -> str | None:
        """Implement ``ObjectStorage``."""
        return self._urls.key_of(url)

    async def head(self, key: str) -> StoredObject | None:
        """Implement ``ObjectStorage``."""
        await checkpoint()
        found = self._objects.get(key)
        return None if found is None else found[0]

    async def open(self, key: str) -> AsyncIterator[bytes]:
        """Implement ``ObjectStorage``."""
        await checkpoint()
        if key not in self._objects:
            raise EdgeError(Code.NOT_FOUND, "There is no such object.")
        yield self._objects[key][1]

    async def delete(self, key: str) -> None:
        """Implement ``ObjectStorage``."""
        await checkpoint()
        self._objects.pop(key, None)

    async def check(self) -> None:
        """Implement ``Checked``."""
