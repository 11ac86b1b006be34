"""Holds images and masks."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol

from s3edge.ports.checked import Checked
from s3edge.values import StoredObject


class ObjectStorage(Checked, Protocol):
    """Holds objects under keys, each written once and whole."""

    async def put(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str,
        size_bytes: int | None = None,
    ) -> StoredObject:
        """
        Store an object from a stream.

        Callers guarantee:
            ``key`` passes ``rules.keys.is_key``; ``size_bytes``, when given, is exact.

        Implementations must:
            Keep every byte and the type (``test_what_is_put_is_read_back``).
            Show nothing before the stream has ended well (``test_nothing_is_seen_before_the_end``).
            Leave nothing when the stream raises, and let the error out
            (``test_a_stream_that_raises_leaves_nothing``).
            Leave nothing when cancelled (``test_a_cancelled_put_leaves_nothing``).
            Keep the first object when a key is put again (``test_the_first_put_wins``).

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE``.
        """

    def url_for(self, key: str) -> str:
        """
        Return an address that a client or a GPU server can read the object from now.

        Implementations must:
            Give each key its own URL, and put a signature only in the query, so that what is before
            the ``?`` is permanent (``test_a_url_leads_back_to_its_key``).

        Raises:
            EdgeError: ``SERVICE_UNAVAILABLE`` when nothing can be signed now.
        """

    def key_of(self, url: str) -> str | None:
        """
        Return the key that ``url_for`` made a URL of, or ``None`` for any other URL.

        Implementations must:
            Undo ``url_for`` with and without its query (``test_a_url_leads_back_to_its_key``).
            Know no other host, scheme, port or path (``test_a_foreign_url_has_no_key``).
        """

    async def head(self, key: str) -> StoredObject | None:
        """
        Return what is stored under a key, without its bytes.

        Implementations must:
            Return ``None`` for a key that holds nothing (``test_an_absent_key_has_no_head``).
        """

    def open(self, key: str) -> AsyncIterator[bytes]:
        """
        Stream an object's bytes.

        Implementations must:
            Raise ``NOT_FOUND`` for a key that holds nothing (``test_an_absent_key_cannot_be_opened``).
        """

    async def delete(self, key: str) -> None:
        """
        Remove an object.

        Implementations must:
            Remove it (``test_a_deleted_object_is_gone``).
            Accept a key that holds nothing (``test_deleting_nothing_is_no_error``).
        """
