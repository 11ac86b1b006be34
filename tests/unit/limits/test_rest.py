"""A store that failed is left alone for a moment, then tried by one request."""

from contextlib import suppress

import anyio
import pytest

from s3edge.errors import Code, EdgeError, unavailable
from s3edge_limits.rest import REST_S, Rest


class Watch:
    """A clock that stands still until it is moved."""

    seconds = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.seconds


@pytest.fixture
def watch() -> Watch:
    """Return the time that the rest goes by."""
    return Watch()


@pytest.fixture
def rest(watch: Watch) -> Rest:
    """Return what guards a store that works."""
    return Rest(watch)


def fail(rest: Rest) -> None:
    """Ask a store that is down."""
    with suppress(EdgeError), rest.request():
        raise unavailable("It is down.")


def is_asked(rest: Rest) -> bool:
    """Ask a store that works, and return whether the question reached it."""
    reached = False
    with suppress(EdgeError), rest.request():
        reached = True
    return reached


def test_a_store_that_works_is_asked(rest: Rest) -> None:
    """Requests go on side by side and one after the other."""
    with rest.request():
        assert is_asked(rest)
    assert is_asked(rest)


def test_a_store_that_failed_rests(rest: Rest, watch: Watch) -> None:
    """Until its rest has passed nothing is sent to it; then it works as before."""
    fail(rest)
    with pytest.raises(EdgeError, match="It is down") as caught, rest.request():
        pytest.fail("it was asked")
    assert caught.value.code is Code.SERVICE_UNAVAILABLE
    watch.seconds += REST_S - 0.001
    assert not is_asked(rest)
    watch.seconds += 0.001
    assert is_asked(rest)
    assert is_asked(rest)


def test_one_request_tries_it(rest: Rest, watch: Watch) -> None:
    """While a trial waits for its answer, the others do not wait with it."""
    fail(rest)
    watch.seconds += REST_S
    with rest.request():
        watch.seconds += 10 * REST_S
        assert not is_asked(rest)
    with rest.request():
        assert is_asked(rest)


def test_a_trial_that_fails_begins_another_rest(rest: Rest, watch: Watch) -> None:
    """The rest counts from the end of the trial."""
    fail(rest)
    watch.seconds += REST_S
    with suppress(EdgeError), rest.request():
        watch.seconds += 5
        raise unavailable("It is down.")
    assert not is_asked(rest)
    watch.seconds += REST_S
    assert is_asked(rest)


def test_an_answer_to_an_earlier_request_ends_the_rest(rest: Rest) -> None:
    """What was asked before the failure, and is answered after it, proves that the store works."""
    with rest.request():
        fail(rest)
        assert not is_asked(rest)
    assert is_asked(rest)


@pytest.mark.anyio
async def test_a_trial_that_is_given_up_is_followed_by_another(rest: Rest, watch: Watch) -> None:
    """Its client went away, so nothing is known: the next request tries the store."""
    fail(rest)
    watch.seconds += REST_S
    with anyio.CancelScope() as scope, rest.request():
        scope.cancel()
        await anyio.sleep_forever()
    assert is_asked(rest)
