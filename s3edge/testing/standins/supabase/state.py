"""What a running stand-in knows."""

from collections import Counter
from pathlib import Path

from attrs import Factory, define, field

from s3edge.testing.standins.supabase.project import Project


@define
class State:
    """
    A running project.

    Attributes:
        url: Where it is reached, without a trailing slash.
        project: Its keys.
        auth_database_url: The database as Supabase Auth uses it.
        file: Where the keys are kept; ``None`` to keep them nowhere.
        issued_in_future: How many more requests are refused as too new.
        requests: How often what was asked, by method and path.
    """

    url: str
    project: Project
    auth_database_url: str = field(repr=False)
    file: Path | None = None
    issued_in_future: int = 0
    requests: Counter[str] = Factory(Counter)

    def save(self) -> None:
        """Keep the keys."""
        if self.file is not None:
            self.project.save(self.file)
