"""What a process takes on at once, and how it refuses the rest."""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import anyio
import pytest
from attrs import evolve

from s3edge.errors import Code, EdgeError
from s3edge.gateway import Gateway
from s3edge.memory import MemoryAuthenticator, MemoryDatabase, MemoryObjectStorage
from s3edge.testing.clock import ManualClock
from s3edge.values import Outcome, Task, User
from s3edge.web.admission import Admission, Place
from s3edge.web.app import WebApp
from s3edge.web.http import Request, Response


pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[Response]]
Check = Callable[..., dict[str, Any]]

OUTCOME = Outcome("https://gpu.test/masks/x", ["a cat"], {"confidence": 0.5})


def refused(call: Callable[[], object]) -> EdgeError:
    """Return the error that a call is refused with."""
    with pytest.raises(EdgeError) as caught:
        call()
    return caught.value


@pytest.fixture
def admission(clock: ManualClock) -> Admission:
    """Have two places, and one for those who wait."""
    return Admission(2, 1, clock)


def test_beyond_the_bound_a_request_is_refused_and_told_when_to_return(
    admission: Admission,
) -> None:
    """The third of two is refused; a place that is left is free at once."""
    with admission.place() as first, admission.place() as second, admission.place() as third:
        first.take()
        second.take()
        error = refused(third.take)
        assert (error.code, error.retryable) == (Code.SERVICE_UNAVAILABLE, True)
        assert error.retry_after_s == 1
        first.leave()
        third.take()
        assert admission.serving == 2
    assert admission.serving == 0


def test_a_place_is_left_whatever_happens(admission: Admission) -> None:
    """An error in the middle frees the place, and one that was never taken frees none."""

    def fail() -> None:
        with admission.place() as place:
            place.take()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert admission.serving == 0
    with admission.place():
        pass
    assert admission.serving == 0


def test_who_waits_gives_the_place_to_others_and_finishes_all_the_same(
    admission: Admission,
) -> None:
    """After the wait the bound may be passed: what was begun is not thrown away."""
    with admission.place() as waiter, admission.place() as first, admission.place() as second:
        waiter.take()
        with waiter.stand_aside():
            assert (admission.serving, admission.waiting) == (0, 1)
            first.take()
            second.take()
        assert (admission.serving, admission.waiting) == (3, 0)
    assert admission.serving == 0


def test_a_user_has_so_many_at_once_and_no_more(admission: Admission) -> None:
    """One too many is told to come back; others are not concerned, and what ends makes room."""
    user, other = uuid4(), uuid4()
    with admission.place() as first, admission.place() as second:
        first.take()
        first.take_for(user, 1)
        second.take()
        error = refused(lambda: second.take_for(user, 1))
        assert (error.code, error.retryable) == (Code.RATE_LIMITED, True)
        assert error.retry_after_s == 1
        second.take_for(other, 1)
        first.leave()
        first.take_for(user, 1)
    assert admission.serving == 0
    assert not admission._of_users


def test_too_many_who_wait_are_refused(admission: Admission) -> None:
    """The bound of waits is its own; whoever is refused still holds the place that it had."""
    with admission.place() as first, admission.place() as second:
        first.take()
        with first.stand_aside():
            second.take()
            error = refused(second.stand_aside().__enter__)
            assert (error.code, error.retry_after_s) == (Code.SERVICE_UNAVAILABLE, 1)
            assert (admission.serving, admission.waiting) == (1, 1)
    assert (admission.serving, admission.waiting) == (0, 0)


def test_a_wait_that_is_broken_off_leaves_nothing(admission: Admission) -> None:
    """A client that hangs up frees both."""

    def hang_up() -> None:
        with admission.place() as place:
            place.take()
            with place.stand_aside():
                raise RuntimeError

    with pytest.raises(RuntimeError):
        hang_up()
    assert (admission.serving, admission.waiting) == (0, 0)


def test_refusals_are_logged_once_a_minute_with_their_number(
    admission: Admission, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The first is told at once, the others when a minute has passed, also by one that is served."""
    with admission.place() as first, admission.place() as second:
        first.take()
        second.take()
        for _ in range(5):
            refused(Place(admission).take)
        (line,) = caplog.messages
        assert "refused: 1 since" in line
        clock.advance(60)
    with admission.place() as served:
        served.take()
    assert "refused: 4 since" in caplog.messages[1]
    clock.advance(60)
    with admission.place() as served:
        served.take()
    assert len(caplog.messages) == 2
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


class UntouchedDatabase(MemoryDatabase):
    """Must not be asked."""

    async def profile(self, user: User) -> Any:
        """Implement ``Database``."""
        raise AssertionError(user)


class UntouchedAuthenticator(MemoryAuthenticator):
    """Must not be asked."""

    async def authenticate(self, token: str) -> User:
        """Implement ``Authenticator``."""
        raise AssertionError(token)


@pytest.fixture
def full(gateway: Gateway, storage: MemoryObjectStorage) -> WebApp:
    """Serve with one place, and one for those who wait."""
    gateway.options = evolve(gateway.options, max_requests=1, max_waits=1)
    return WebApp(gateway, extra_routes=storage.routes())


class Unread:
    """A body that must not be read."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Be a body."""
        return self

    async def __anext__(self) -> bytes:
        """Fail: somebody reads."""
        raise AssertionError


async def test_a_full_process_refuses_before_it_does_anything(
    full: WebApp, gateway: Gateway, send: Send, error_of: Check, clock: ManualClock
) -> None:
    """Neither the token nor the body nor the database is looked at; ``/health`` is answered."""
    path = next(path for path in full.paths if path.path == "/openapi.json")
    held = Request("GET", path.path, "", {}, Unread())
    async with full.response_to(held, path) as answered:
        assert answered.status == 200
        gateway.authenticator = UntouchedAuthenticator(clock)
        gateway.database = UntouchedDatabase(clock)
        for method, target in (
            ("POST", "/api/v1/upload"),
            ("GET", "/api/v1/me"),
            ("GET", "/health/ready"),
            ("GET", "/openapi.json"),
        ):
            answer = await send(
                method,
                target,
                user=None,
                headers={"authorization": "Bearer x"},
                body=Unread(),
                app=full,
            )
            error_of(answer, 503, "SERVICE_UNAVAILABLE")
            assert dict(answer.headers)["retry-after"] == "1"
        assert (await send("GET", "/health", user=None, app=full)).status == 200
        assert (await send("GET", "/nowhere", user=None, app=full)).status == 404
    assert (await send("GET", "/openapi.json", user=None, app=full)).status == 200


async def test_a_long_poll_takes_no_place_while_it_waits(
    full: WebApp,
    gateway: Gateway,
    database: MemoryDatabase,
    send: Send,
    data_of: Check,
    error_of: Check,
    task_of: Callable[..., Awaitable[Task]],
    alice: User,
) -> None:
    """One poll waits, others are served meanwhile, a second poll is refused, and the first ends well."""
    task = await task_of(alice)
    target = f"/api/v1/tasks/{task.id}?wait=30"
    answers = []

    async def poll() -> None:
        answers.append(await send("GET", target, app=full))

    async with anyio.create_task_group() as group:
        group.start_soon(poll)
        await anyio.wait_all_tasks_blocked()
        data_of(await send("GET", "/api/v1/me", app=full))
        error_of(await send("GET", target, app=full), 503, "SERVICE_UNAVAILABLE")
        await database.complete_task(task.id, OUTCOME)
        gateway.signals.ended(task.id)
    assert data_of(answers[0])["status"] == "done"
    # It is done, so nobody has to wait, and nobody is refused.
    assert data_of(await send("GET", target, app=full))["status"] == "done"


async def test_what_is_streamed_counts_until_it_is_sent(
    full: WebApp, storage: MemoryObjectStorage, send: Send
) -> None:
    """A slow reader of an image is work, although its handler has long returned."""

    async def image() -> AsyncIterator[bytes]:
        yield b"image"

    await storage.put("uploads/x", image(), content_type="image/png")
    url = storage.url_for("uploads/x").removeprefix("https://edge.test")
    target, _, query = url.partition("?")
    path = next(path for path in full.paths if path.path == "/media/{key:path}")
    asked = Request("GET", target, query, {}, Unread(), {"key": "uploads/x"})
    async with full.response_to(asked, path) as answer:
        assert answer.status == 200
        assert not isinstance(answer.body, bytes)
        second = await send("GET", url, user=None, app=full)
        assert second.status == 503
        assert isinstance(second.body, bytes)
        assert json.loads(second.body)["error"]["code"] == "SERVICE_UNAVAILABLE"
        assert [chunk async for chunk in answer.body] == [b"image"]
    assert (await send("GET", url, user=None, app=full)).status == 200
