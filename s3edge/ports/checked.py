"""What any dependency can be asked: whether it works, and what is wrong with it."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, runtime_checkable

from attrs import frozen


class Checked(Protocol):
    """A dependency that can be asked whether it works."""

    async def check(self) -> None:
        """
        Return when the dependency answers.

        Implementations must:
            Touch the dependency and change nothing (``test_check_passes``).

        Raises:
            EdgeError: What is wrong with it.
        """


@frozen
class Finding:
    """
    What an examination of a dependency found.

    Attributes:
        name: Of what was looked at, in a few words.
        ok: Whether it is as it must be.
        message: What was seen; when it is not ok, what to do about it, on one line. Holds no secret.
    """

    name: str
    ok: bool
    message: str


@runtime_checkable
class Examinable(Protocol):
    """A dependency that the operator can have examined more closely than ``check`` does."""

    def examine(self) -> AsyncIterator[Finding]:
        """
        Look at each thing that can be wrong, leave nothing changed, and raise nothing for a fault.

        Findings come as they are made; one that makes the others pointless is the last.
        """


@runtime_checkable
class Limited(Protocol):
    """A part that works, but with less than it could have."""

    def limitations(self) -> Sequence[str]:
        """Return what is missing and what that costs, a line each; said at the start."""
