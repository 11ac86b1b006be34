"""What is left when a store goes silent is removed when it is back; time passes at once here."""

from typing import Any

import anyio
import pytest

from s3edge.errors import unavailable
from s3edge_aiohttp import NoAnswerError
from s3edge_s3.leftovers import DELAYS_S, GIVE_UP_S, MAX_KEPT, UNANSWERED_DELAY_S, Leftovers


pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Let time pass at once."""
    return jumping_loop


class Store:
    """Is silent until a time; counts the calls."""

    def __init__(self, silent_until_s: float = 0.0, error: Exception | None = None) -> None:
        self._back_at = anyio.current_time() + silent_until_s
        self._error = error
        self.calls = 0
        self.answered_at: list[float] = []

    def mend(self) -> None:
        """Raise no more."""
        self._error = None

    async def undo(self) -> None:
        """Remove what there is."""
        self.calls += 1
        if anyio.current_time() < self._back_at:
            raise NoAnswerError("silence", may_have_acted=False)
        self.answered_at.append(anyio.current_time())
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize("error", [None, unavailable("refused")])
async def test_it_is_looked_at_until_long_after_the_store_is_back(error: Exception | None) -> None:
    """A request that waited in the silent store may be carried out late."""
    store = Store(60.0, error)
    async with Leftovers() as leftovers:
        leftovers.add(store.undo)
        await anyio.sleep(60 + 10 + sum(DELAYS_S))
    assert len(store.answered_at) == len(DELAYS_S)
    assert store.answered_at[-1] - store.answered_at[0] == pytest.approx(sum(DELAYS_S[1:]))


async def test_a_store_that_stays_silent_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is tried for ever."""
    store = Store(10 * GIVE_UP_S)
    async with Leftovers() as leftovers:
        leftovers.add(store.undo)
        await anyio.sleep(2 * GIVE_UP_S)
        calls = store.calls
        await anyio.sleep(GIVE_UP_S)
        assert store.calls == calls
    assert calls <= GIVE_UP_S / 10 + 2
    assert "may be left in the bucket" in caplog.text


async def test_an_unforeseen_error_is_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    """It is said with its trace, and what is left is looked at again."""
    store = Store(error=KeyError("unforeseen"))
    async with Leftovers() as leftovers:
        leftovers.add(store.undo)
        await anyio.sleep(DELAYS_S[0] + 1.5 * UNANSWERED_DELAY_S)
        assert len(store.answered_at) == 2
        store.mend()
        await anyio.sleep(10 + sum(DELAYS_S))
    assert len(store.answered_at) == 2 + len(DELAYS_S)
    traces = [record.exc_info for record in caplog.records if record.exc_info]
    assert [trace[0] for trace in traces] == [KeyError, KeyError]


async def test_there_is_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    """What is more is said and left."""
    store = Store()
    async with Leftovers() as leftovers:
        for _ in range(MAX_KEPT + 1):
            leftovers.add(store.undo)
        assert caplog.text.count("may be left in the bucket") == 1
        await anyio.sleep(2 * sum(DELAYS_S))
        leftovers.add(store.undo)
        await anyio.sleep(2 * sum(DELAYS_S))
    assert store.calls == (MAX_KEPT + 1) * len(DELAYS_S)


async def test_the_end_does_not_wait() -> None:
    """A server that stops is not held up."""
    store = Store(3600.0)
    async with Leftovers() as leftovers:
        leftovers.add(store.undo)
        started = anyio.current_time()
    assert anyio.current_time() == started
    leftovers.add(store.undo)
    assert store.calls == 0
