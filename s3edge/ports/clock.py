"""Time and ids, so that both come in as arguments."""

from datetime import datetime
from typing import Protocol
from uuid import UUID


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Return the time, aware and in UTC."""


class Ids(Protocol):
    """Makes ids."""

    def new(self) -> UUID:
        """Return a fresh UUID v4."""
