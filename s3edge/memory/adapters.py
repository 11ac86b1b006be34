"""Factories of the ``memory:`` settings."""

from s3edge.memory.database import MemoryDatabase
from s3edge.memory.storage import MemoryObjectStorage
from s3edge.ports import Wiring


def database(url: str, wiring: Wiring) -> MemoryDatabase:  # noqa: ARG001 - the factories' signature
    """Return a database that ends with the process."""
    return MemoryDatabase(
        wiring.clock,
        initial_credits=wiring.initial_credits,
        segment_cost=wiring.segment_cost,
        task_deadline_s=wiring.task_deadline_s,
    )


def storage(url: str, wiring: Wiring) -> MemoryObjectStorage:  # noqa: ARG001 - likewise
    """Return a storage that ends with the process."""
    return MemoryObjectStorage(wiring.public_url, wiring.clock)
