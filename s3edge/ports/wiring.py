"""What an adapter is made with."""

from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from s3edge.ports.clock import Clock, Ids
from s3edge.ports.database import Database
from s3edge.ports.object_storage import ObjectStorage
from s3edge.ports.task_queue import INLINE


class MissingPartError(ValueError):
    """
    A part cannot be made, because the wiring lacks another that it works through.

    Attributes:
        part: Which, in a word.
    """

    def __init__(self, part: str) -> None:
        super().__init__(f"it works through the {part}, which could not be built")
        self.part = part


@frozen
class Wiring:
    """
    What the composition root tells the factory of an adapter.

    Attributes:
        data_dir: Where embedded parts keep their files.
        public_url: The address at which clients reach this server, without a trailing slash.
        clock: Tells the time.
        ids: Makes ids.
        initial_credits: What a new user has.
        segment_cost: What a segmentation costs, in credits.
        task_deadline_s: When an unanswered task ends in ``error``, in seconds.
        tier_claim: Path of the tier in a token's claims.
        dispatch: Who dispatches tasks: ``inline``, or the scheme of a queue.
        storage: The object storage, for parts that are built after it; else ``None``.
        database: The database, likewise.
        vendor: The rest of the environment: settings under vendors' own names; holds secrets.
    """

    data_dir: Path
    public_url: str
    clock: Clock
    ids: Ids
    initial_credits: int
    segment_cost: int
    task_deadline_s: int
    tier_claim: str
    dispatch: str = INLINE
    storage: ObjectStorage | None = None
    database: Database | None = None
    vendor: Mapping[str, str] = field(factory=dict, repr=False)
