"""What both colours' handles have in common: who they are, and how they come back from a pickle."""

from typing import Any, Generic, TypeVar
from uuid import UUID

from attrs import define, field

from s3edge.client.errors import ConfigurationError
from s3edge.client.models import TaskState


C = TypeVar("C")


class Link(Generic[C]):
    """
    A handle's way to its client. It pickles as none: a client holds connections and a token.

    Args:
        client: The client; ``None`` in a handle that was unpickled.
    """

    __slots__ = ("_client",)

    def __init__(self, client: C | None = None) -> None:
        self._client = client

    @property
    def client(self) -> C:
        """
        The client.

        Raises:
            ConfigurationError: The handle was unpickled, and belongs to no client yet.
        """
        if self._client is None:
            raise ConfigurationError(
                "This handle was unpickled and has no client; client.task(task) and"
                " client.result(result.id) return one that has."
            )
        return self._client

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the client behind."""
        return Link, ()


@define(unsafe_hash=True)  # by the id alone, which never changes
class TaskHandle:
    """
    A segmentation that was asked for.

    Attributes:
        id: Names it, now and after a restart.
        state: As it was last seen; ``None`` if it never was.
        idempotency_key: Which it was asked for with; ``None`` where it was not this client that asked.
        replayed: Whether the answer repeated an earlier one of the same key, so that nothing was charged.
    """

    id: UUID
    state: TaskState | None = field(default=None, eq=False)
    idempotency_key: str | None = field(default=None, eq=False)
    replayed: bool = field(default=False, eq=False)

    @property
    def status(self) -> str | None:
        """The status that it was last seen in."""
        return None if self.state is None else self.state.status
