"""The fixtures do what they say, over both doors and in both colours."""

import asyncio
import io
from collections.abc import AsyncIterable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self
from uuid import uuid4

import anyio
import pytest
from anyio import to_thread
from PIL import Image

from s3edge.client import (
    AuthInvalid,
    Client,
    FileTooLarge,
    InsufficientCredits,
    RateLimited,
    TaskFailed,
    WaitTimeout,
)
from s3edge.client.session import IN_PROCESS_URL
from s3edge.memory import MemoryObjectStorage
from s3edge.testing import Deployment, ManualClock, ScriptedGpu, SignIn, SignInAsync
from s3edge.testing.clock import START
from s3edge.testing.signing_in import user_id_of
from s3edge.values import PredictRequest, StoredObject, Tier, User


def is_white(mask: Image.Image) -> bool:
    """Return whether all of a mask was found."""
    return mask.getextrema() == (255, 255)


def test_held_tasks_wait_for_the_test(
    s3edge_client: Client, s3edge_gpu: ScriptedGpu, picture: Image.Image
) -> None:
    """One is let go, then the others; what comes later is not held."""
    image = s3edge_client.upload(picture)
    s3edge_gpu.hold()
    tasks = [s3edge_client.segment(image, prompt) for prompt in ("a", "b", "c")]
    assert [request.text_prompt for request in s3edge_gpu.requests] == ["a", "b", "c"]
    assert [task.refresh().status for task in tasks] == ["processing"] * 3
    s3edge_gpu.release(1)
    assert [task.refresh().status for task in tasks] == ["done", "processing", "processing"]
    s3edge_gpu.release()
    assert [task.refresh().status for task in tasks] == ["done"] * 3
    assert s3edge_client.segment(image, "d").refresh().status == "done"


def test_results_are_in_the_order_of_asking(s3edge_client: Client, picture: Image.Image) -> None:
    """Newest first, page by page, though all were asked for at the same time."""
    image = s3edge_client.upload(picture)
    prompts = [f"{number}" for number in range(20)]
    for prompt in prompts:
        s3edge_client.segment(image, prompt)
    results = list(s3edge_client.results(page_size=3))
    assert [result.text_prompt for result in results] == prompts[::-1]
    assert {result.created_at for result in results} == {START}


def test_what_a_test_cannot_mean_is_refused(
    s3edge_gpu: ScriptedGpu, s3edge_clock: ManualClock, s3edge_sign_in: SignIn
) -> None:
    """At the line that says it, instead of by a task that fails later, or not at all."""
    mask: Any = "mask.png"
    with pytest.raises(TypeError, match=r"and not 'mask\.png'"):
        s3edge_gpu.answer(mask)
    for seconds in (-5, float("nan")):
        with pytest.raises(ValueError, match="time does not go back"):
            s3edge_clock.advance(seconds)
    assert s3edge_clock.elapsed_s == 0
    with pytest.raises(ValueError, match="fewer credits than none: -1"):
        s3edge_sign_in("alice", credits=-1)
    assert s3edge_sign_in("alice", credits=0).me().credits == 0


def test_a_wait_for_a_held_task_is_over_at_once(
    s3edge_client: Client, s3edge_gpu: ScriptedGpu, s3edge_clock: ManualClock, picture: Image.Image
) -> None:
    """A minute of the test's time has passed; the task goes on when it may."""
    s3edge_gpu.hold()
    task = s3edge_client.segment(s3edge_client.upload(picture), "x")
    with pytest.raises(WaitTimeout):
        task.wait(timeout=60)
    assert s3edge_clock.elapsed_s == 60
    s3edge_gpu.release()
    assert is_white(task.wait(timeout=1).mask.to_pil().crop((0, 0, 4, 6)))
    assert s3edge_clock.elapsed_s == 60
    assert len(s3edge_gpu.requests) == 1


def test_a_slow_gpu_takes_the_tests_time(
    s3edge_client: Client, s3edge_gpu: ScriptedGpu, s3edge_clock: ManualClock, picture: Image.Image
) -> None:
    """To the second."""
    s3edge_gpu.take(40)
    task = s3edge_client.segment(s3edge_client.upload(picture), "x")
    s3edge_clock.advance(39)
    assert task.refresh().status == "processing"
    task.wait(timeout=60)
    assert s3edge_clock.elapsed_s == 40


def test_the_mask_is_the_tests(
    s3edge_client: Client, s3edge_gpu: ScriptedGpu, picture: Image.Image
) -> None:
    """A picture, a PNG, or what a function makes of the request; labels and confidence with it."""
    white = Image.new("L", picture.size, 255)
    png = io.BytesIO()
    white.save(png, "PNG")
    image = s3edge_client.upload(picture)

    def of_prompt(request: PredictRequest) -> Image.Image:
        return white if request.text_prompt == "all" else Image.new("L", picture.size)

    s3edge_gpu.answer(white, labels=["lamp"], confidence=0.25)
    result = s3edge_client.segment(image, "x").wait(timeout=5)
    assert is_white(result.mask.to_pil())
    assert (list(result.labels), result.metadata["confidence"]) == (["lamp"], 0.25)
    s3edge_gpu.answer(png.getvalue())
    assert s3edge_client.segment(image, "x").wait(timeout=5).mask.read() == png.getvalue()
    s3edge_gpu.answer(of_prompt)
    assert is_white(s3edge_client.segment(image, "all").wait(timeout=5).mask.to_pil())
    assert not is_white(s3edge_client.segment(image, "none").wait(timeout=5).mask.to_pil())
    s3edge_gpu.answer()
    result = s3edge_client.segment(image, "x").wait(timeout=5)
    assert result.labels == ["x"]
    assert result.mask.to_pil().tobytes() == picture.tobytes()


def test_what_passes_is_tried_again(
    s3edge_client: Client, s3edge_gpu: ScriptedGpu, s3edge_clock: ManualClock, picture: Image.Image
) -> None:
    """By s3edge; the client sees a task that takes a little longer."""
    s3edge_gpu.fail(2)
    s3edge_client.segment(s3edge_client.upload(picture), "x").wait(timeout=60)
    assert len({request.task_id for request in s3edge_gpu.requests}) == 1
    assert len(s3edge_gpu.requests) == 3
    assert 0 < s3edge_clock.elapsed_s < 10
    assert s3edge_client.me().credits == 99


def test_a_gpu_that_stays_down_fails_the_task(
    s3edge_client: Client, s3edge_gpu: ScriptedGpu, picture: Image.Image
) -> None:
    """After six tries; refunded."""
    s3edge_gpu.fail(6)
    task = s3edge_client.segment(s3edge_client.upload(picture), "x")
    with pytest.raises(TaskFailed) as failure:
        task.wait(timeout=60)
    assert failure.value.code == "SERVICE_UNAVAILABLE"
    assert s3edge_client.me().credits == 100


def test_a_refusal_is_for_good(
    s3edge_client: Client, s3edge_gpu: ScriptedGpu, picture: Image.Image
) -> None:
    """Asked once, in the test's words, refunded; until the test has it answer again."""
    image = s3edge_client.upload(picture)
    s3edge_gpu.refuse("There is no chair.", code="INVALID_REQUEST")
    with pytest.raises(TaskFailed, match=r"There is no chair\.") as failure:
        s3edge_client.segment(image, "chair").wait(timeout=60)
    assert failure.value.code == "INVALID_REQUEST"
    assert len(s3edge_gpu.requests) == 1
    assert s3edge_client.me().credits == 100
    s3edge_gpu.answer()
    s3edge_client.segment(image, "chair").wait(timeout=60)


@pytest.mark.s3edge(task_deadline_s=60)
def test_the_deadline_passes(
    s3edge_client: Client, s3edge_gpu: ScriptedGpu, s3edge_clock: ManualClock, picture: Image.Image
) -> None:
    """Somebody settles the task when it is overdue, and not before."""
    s3edge_gpu.take(90)
    task = s3edge_client.segment(s3edge_client.upload(picture), "x")
    s3edge_clock.advance(59)
    assert task.refresh().status == "processing"
    s3edge_clock.advance(15 * 60)
    with pytest.raises(TaskFailed, match="not answered in time"):
        task.wait(timeout=1)
    state = task.refresh()
    assert state.created_at is not None
    assert state.updated_at is not None
    assert 60 <= (state.updated_at - state.created_at).total_seconds() <= 65
    assert s3edge_client.me().credits == 100


def test_users_are_apart(s3edge_sign_in: SignIn, picture: Image.Image) -> None:
    """Several at once; a name is the same user each time."""
    alice = s3edge_sign_in("alice", tier="free", credits=1)
    bob = s3edge_sign_in("bob", tier=Tier.ENTERPRISE)
    alice.segment(alice.upload(picture), "x").wait(timeout=5)
    with pytest.raises(InsufficientCredits):
        alice.segment(alice.upload(picture), "x")
    assert (alice.me().tier, alice.me().credits) == ("free", 0)
    assert (bob.me().tier, bob.me().credits) == ("enterprise", 100)
    assert list(bob.results()) == []
    assert alice.me().user_id == s3edge_sign_in("alice").me().user_id == user_id_of("alice")
    somebody = User(uuid4(), Tier.FREE)
    assert s3edge_sign_in(somebody, credits=7).me().user_id == somebody.user_id
    with pytest.raises(FileTooLarge):
        alice.upload(bytes(11 * 1024 * 1024))


@pytest.mark.parametrize("credits", [0, 3, 1000])
def test_credits_add_up(
    s3edge_sign_in: SignIn, s3edge_deployment: Deployment, credits: int, picture: Image.Image
) -> None:
    """Also those that a test has set, before and after something was spent."""
    alice = s3edge_sign_in("alice")
    alice.segment(alice.upload(picture), "x").wait(timeout=5)
    s3edge_sign_in("alice", credits=credits)
    assert alice.me().credits == credits

    async def adds_up() -> list[bool]:
        accounts = s3edge_deployment.database.accounts()
        return [
            account.credits == account.granted - account.used == account.granted - account.live_cost
            async for account in accounts
        ]

    assert asyncio.run(adds_up()) == [True]


@pytest.mark.s3edge(rate_limits=True)
def test_real_limits_and_their_end(
    s3edge_sign_in: SignIn, s3edge_clock: ManualClock, picture: Image.Image
) -> None:
    """A tier's limit is reached; a patient client waits in no time, and so does the test."""
    alice, bob = s3edge_sign_in("alice", tier="free"), s3edge_sign_in("bob", tier="pro")
    image = alice.upload(picture)
    for _ in range(10):
        alice.segment(image, "x")
    with pytest.raises(RateLimited) as refusal:
        alice.with_options(max_retries=0).segment(image, "x")
    assert refusal.value.retry_after == 61
    for _ in range(11):
        bob.segment(bob.upload(picture), "x")
    alice.segment(image, "x")
    assert s3edge_clock.pauses == [61.5]
    assert s3edge_clock.elapsed_s == 61.5


@pytest.mark.s3edge(rate_limits="free.upload=1/hour", initial_credits=5, segment_cost=2)
def test_what_an_operator_decides(s3edge_sign_in: SignIn, picture: Image.Image) -> None:
    """Limits, credits and prices."""
    alice = s3edge_sign_in("alice", tier="free", max_retries=0)
    image = alice.upload(picture)
    with pytest.raises(RateLimited):
        alice.upload(picture)
    alice.segment(image, "x")
    assert alice.me().credits == 3


def test_tokens_expire(s3edge_sign_in: SignIn, s3edge_clock: ManualClock) -> None:
    """After an hour; who signs in again is the same user."""
    alice = s3edge_sign_in("alice", credits=4)
    alice.me()
    s3edge_clock.advance(3600)
    with pytest.raises(AuthInvalid):
        alice.me()
    assert s3edge_sign_in("alice").me().credits == 4


def test_what_is_held_does_not_hold_the_end(
    s3edge_client: Client, s3edge_gpu: ScriptedGpu, picture: Image.Image
) -> None:
    """A test may end while tasks are held; the deployment's grace takes no time either."""
    s3edge_gpu.hold()
    s3edge_client.segment(s3edge_client.upload(picture), "x")


def test_the_same_time_for_all(
    s3edge_client: Client,
    s3edge_storage: MemoryObjectStorage,
    s3edge_clock: ManualClock,
    picture: Image.Image,
) -> None:
    """Tasks are created in it, and signed URLs expire by it."""
    s3edge_clock.advance(100)
    task = s3edge_client.segment(s3edge_client.upload(picture), "x")
    assert task.refresh().created_at == s3edge_clock.now()
    assert len(s3edge_storage.keys()) == 2


class BusyStorage(MemoryObjectStorage):
    """Keeps a thread busy before it has stored anything."""

    async def __aenter__(self) -> Self:
        """Take a while to open."""
        await anyio.sleep(3)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Take a while to close."""
        await anyio.sleep(3)

    async def put(self, key: str, chunks: AsyncIterable[bytes], **more: Any) -> StoredObject:
        """Implement ``ObjectStorage``."""
        await to_thread.run_sync(sum, range(1_000_000))
        return await super().put(key, chunks, **more)


class TestOnAStorageOfOnesOwn:
    """Which the other fixtures take."""

    @pytest.fixture
    def s3edge_storage(self, s3edge_clock: ManualClock) -> BusyStorage:
        """Return it."""
        return BusyStorage(IN_PROCESS_URL, s3edge_clock)

    def test_an_answer_comes_when_all_is_at_rest(
        self, s3edge_client: Client, s3edge_storage: BusyStorage, picture: Image.Image
    ) -> None:
        """So that what a test sees next is no race."""
        image = s3edge_client.upload(picture)
        for _ in range(3):
            assert s3edge_client.segment(image, "x").refresh().status == "done"
        assert len(s3edge_storage.keys()) == 4

    def test_opening_takes_the_tests_time(
        self, s3edge_client: Client, s3edge_clock: ManualClock
    ) -> None:
        """Nobody waits for what happens before the first answer, nor after the last."""
        s3edge_client.me()
        assert s3edge_clock.elapsed_s == 3


def test_a_mask_may_take_time(
    s3edge_client: Client, s3edge_gpu: ScriptedGpu, s3edge_clock: ManualClock, picture: Image.Image
) -> None:
    """The function that makes it may move the time, where it runs."""

    def slow(_: PredictRequest) -> Image.Image:
        s3edge_clock.advance(7)
        return picture

    s3edge_gpu.answer(slow)
    task = s3edge_client.segment(s3edge_client.upload(picture), "x")
    state = task.refresh()
    assert state.status == "done"
    assert state.updated_at == s3edge_clock.now()
    assert s3edge_clock.elapsed_s == 7


def test_threads_may_wait_together(
    s3edge_sign_in: SignIn, s3edge_gpu: ScriptedGpu, s3edge_clock: ManualClock, picture: Image.Image
) -> None:
    """Each for a task of their own, and all of them in no time."""
    s3edge_gpu.take(30)

    def one(name: str) -> int:
        client = s3edge_sign_in(name)
        client.segment(client.upload(picture), "x").wait(timeout=600)
        return client.me().credits

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(one, "abcdef")) == [99] * 6
    assert s3edge_clock.elapsed_s >= 30


def test_a_client_of_ones_own_has_the_same_time(
    s3edge_app: Callable[..., Any],
    s3edge_deployment: Deployment,
    s3edge_gpu: ScriptedGpu,
    s3edge_clock: ManualClock,
    picture: Image.Image,
) -> None:
    """By ``for_app``, which runs the application itself."""
    s3edge_gpu.take(30)
    token = s3edge_deployment.authenticator.issue(User(uuid4()))
    around = s3edge_clock.surroundings()
    with Client.for_app(s3edge_app, token=token, surroundings=around) as client:
        client.segment(client.upload(picture), "x").wait(timeout=60)
        assert s3edge_clock.elapsed_s == 30


@pytest.mark.anyio
async def test_both_colours_at_once(
    s3edge_sign_in: SignIn,
    s3edge_sign_in_async: SignInAsync,
    s3edge_gpu: ScriptedGpu,
    s3edge_clock: ManualClock,
    picture: Image.Image,
) -> None:
    """Of one deployment; many asynchronous calls wait together while time stands still."""
    alice, bob = s3edge_sign_in_async("alice"), s3edge_sign_in("bob")
    s3edge_gpu.hold()
    image = await alice.upload(picture)
    tasks = [await alice.segment(image, str(number)) for number in range(2)]
    mine = bob.segment(bob.upload(picture), "x")
    with s3edge_clock.standing_still():
        waiting = [asyncio.create_task(task.wait(timeout=60)) for task in tasks]
        await asyncio.sleep(0)
        assert len(s3edge_gpu.requests) == 3
        s3edge_gpu.release()
        results = await asyncio.gather(*waiting)
    assert [result.status for result in results] == ["done"] * 2
    assert s3edge_clock.elapsed_s == 0
    assert mine.wait(timeout=1).status == "done"
    s3edge_gpu.take(30)
    await (await alice.segment(image, "x")).wait(timeout=60)
    assert s3edge_clock.elapsed_s == 30
    assert (await alice.me()).credits == 97
