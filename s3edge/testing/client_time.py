"""Time as a client of the SDK sees it, in which pauses take none."""

from datetime import datetime, timedelta

from attrs import define, field

from s3edge.client import Surroundings
from s3edge.testing.clock import START


@define
class ClientTime:
    """
    A machine for ``Client(surroundings=...)`` whose time moves only by pauses, and by hand.

    Attributes:
        elapsed_s: How long it has been since the beginning.
        chance: What every draw of a number from 0 to 1 gives.
        pauses: How long each pause was, in order.
    """

    elapsed_s: float = 0.0
    chance: float = 1.0
    pauses: list[float] = field(factory=list)

    def advance(self, seconds: float) -> None:
        """Let seconds pass."""
        self.elapsed_s += seconds

    def surroundings(self) -> Surroundings:
        """Return the machine."""
        return Surroundings(
            monotonic=lambda: self.elapsed_s,
            now=self.now,
            random=lambda: self.chance,
            sleep=self._pause,
            async_sleep=self._async_pause,
        )

    def now(self) -> datetime:
        """Return the time, aware and in UTC."""
        return START + timedelta(seconds=self.elapsed_s)

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.advance(seconds)

    async def _async_pause(self, seconds: float) -> None:
        self._pause(seconds)
