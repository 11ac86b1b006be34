"""Results: whole, and in lists that never repeat or skip a row."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest

from s3edge.errors import Code
from s3edge.memory import MemoryDatabase, MemoryObjectStorage
from s3edge.rules.keys import mask_key, unsigned, upload_key
from s3edge.rules.paging import MAX_PAGE, Cursor, encode_cursor
from s3edge.testing.clock import ManualClock
from s3edge.values import NewTask, Outcome, Position, Task, User
from s3edge.web.http import Response


pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[Response]]
Check = Callable[..., dict[str, Any]]
MakeTask = Callable[..., Awaitable[Task]]

PROJECT = UUID("1b4e28ba-2fa1-4d2a-883f-0016d3cca427")


@pytest.fixture
def history_of(
    task_of: MakeTask, clock: ManualClock
) -> Callable[[User, int], Awaitable[list[str]]]:
    """Record tasks, three at each moment, and return their ids as they are listed."""

    async def history_of(user: User, count: int) -> list[str]:
        tasks = []
        for number in range(count):
            if number % 3 == 0:
                clock.advance(1)
            tasks.append(await task_of(user))
        tasks.sort(key=lambda task: (task.created_at, task.id.bytes), reverse=True)
        return [str(task.id) for task in tasks]

    return history_of


History = Callable[[User, int], Awaitable[list[str]]]


def ids_of(data: dict[str, Any]) -> list[str]:
    """Return the ids that a list holds."""
    return [item["id"] for item in data["results"]]


async def test_without_results_the_list_is_empty(send: Send, data_of: Check) -> None:
    """A new user has a list of nothing, and no next page."""
    data = data_of(await send("GET", "/api/v1/results"))

    assert data == {"results": [], "total": 0, "page": 1, "limit": 20}


async def test_an_item_has_the_contracts_fields(
    send: Send, data_of: Check, task_of: MakeTask, alice: User, storage: MemoryObjectStorage
) -> None:
    """The image's URL can be read now; the mask's is null until it is done."""
    task = await task_of(alice)

    (item,) = data_of(await send("GET", "/api/v1/results"))["results"]

    assert item == {
        "id": str(task.id),
        "source_image_url": item["source_image_url"],
        "mask_image_url": None,
        "text_prompt": "a cat",
        "status": "pending",
        "created_at": item["created_at"],
    }
    assert item["created_at"].endswith("Z")
    assert item["source_image_url"].startswith(task.source_image_url + "?")
    assert storage.key_of(item["source_image_url"]) == storage.key_of(task.source_image_url)


async def test_a_result_has_everything(
    send: Send,
    data_of: Check,
    task_of: MakeTask,
    database: MemoryDatabase,
    storage: MemoryObjectStorage,
    alice: User,
) -> None:
    """Labels and metadata are what the model said; the mask can be read now."""
    task = await task_of(alice, PROJECT)
    mask_url = unsigned(storage.url_for(mask_key(alice.user_id, task.id)))
    labels = ["a cat", {"box": [1, 2, 3, 4], "score": 0.5}]
    await database.complete_task(task.id, Outcome(mask_url, labels, {"confidence": 0.5}))

    data = data_of(await send("GET", f"/api/v1/results/{task.id}"))

    assert data == {
        "id": str(task.id),
        "project_id": str(PROJECT),
        "source_image_url": data["source_image_url"],
        "mask_image_url": data["mask_image_url"],
        "text_prompt": "a cat",
        "labels": labels,
        "metadata": {"confidence": 0.5},
        "status": "done",
        "created_at": data["created_at"],
        "updated_at": data["updated_at"],
    }
    assert data["mask_image_url"].startswith(mask_url + "?")


async def test_what_is_somebody_elses_is_not_signed(
    send: Send,
    data_of: Check,
    database: MemoryDatabase,
    storage: MemoryObjectStorage,
    alice: User,
) -> None:
    """A row that came another way than through our checks opens nobody's images."""
    other = uuid4()
    image_url = unsigned(storage.url_for(upload_key(other, uuid4())))
    own_mask_url = unsigned(storage.url_for(mask_key(alice.user_id, uuid4())))
    for source_url, mask_url in (
        (image_url, image_url),
        (own_mask_url, unsigned(storage.url_for(mask_key(other, uuid4())))),
    ):
        reservation = await database.reserve_task(alice, NewTask(uuid4(), source_url, "a cat"))
        await database.complete_task(reservation.task.id, Outcome(mask_url))
        data = data_of(await send("GET", f"/api/v1/results/{reservation.task.id}"))
        assert (data["source_image_url"], data["mask_image_url"]) == (source_url, mask_url)
        [item] = [
            item
            for item in data_of(await send("GET", "/api/v1/results"))["results"]
            if item["id"] == data["id"]
        ]
        assert (item["source_image_url"], item["mask_image_url"]) == (source_url, mask_url)


async def test_a_result_that_is_not_done_has_no_mask(
    send: Send, data_of: Check, task_of: MakeTask, database: MemoryDatabase, alice: User
) -> None:
    """Pending and failed tasks are results too, with a null mask and project and empty labels."""
    pending, failed = await task_of(alice), await task_of(alice)
    await database.fail_task(failed.id, Code.INFERENCE_FAILED, "no")

    for task, status in ((pending, "pending"), (failed, "error")):
        data = data_of(await send("GET", f"/api/v1/results/{task.id}"))
        assert (data["status"], data["mask_image_url"]) == (status, None)
        assert (data["project_id"], data["labels"], data["metadata"]) == (None, [], {})


async def test_a_mask_of_another_storage_keeps_its_url(
    send: Send, data_of: Check, task_of: MakeTask, database: MemoryDatabase, alice: User
) -> None:
    """What was written by a server with a bucket of its own is shown as it is."""
    task = await task_of(alice)
    await database.complete_task(task.id, Outcome("https://gpu.test/masks/x"))

    data = data_of(await send("GET", f"/api/v1/results/{task.id}"))

    assert data["mask_image_url"] == "https://gpu.test/masks/x"


async def test_a_list_is_ones_own(
    send: Send, data_of: Check, history_of: History, alice: User, bob: User
) -> None:
    """Other users' results are neither listed nor counted."""
    await history_of(bob, 5)
    own = await history_of(alice, 2)

    data = data_of(await send("GET", "/api/v1/results"))

    assert ids_of(data) == own
    assert data["total"] == 2


async def test_pages_hold_every_row_once(
    send: Send, data_of: Check, history_of: History, alice: User
) -> None:
    """Newest first, ties broken by id; the total is on every page."""
    expected = await history_of(alice, 25)

    listed = []
    for page in range(1, 5):
        data = data_of(await send("GET", f"/api/v1/results?page={page}&limit=10"))
        assert (data["page"], data["limit"], data["total"]) == (page, 10, 25)
        assert ("next_cursor" in data) == (page < 3)
        listed += ids_of(data)

    assert listed == expected


@pytest.mark.parametrize(
    ("query", "shown", "limit"),
    [
        ("", 20, 20),
        ("limit=1", 1, 1),
        ("limit=99", 99, 99),
        ("limit=100", 100, 100),
        ("limit=101", 100, 100),
        ("limit=1000000000", 100, 100),
        ("limit=999999999999999999", 100, 100),
        ("limit=007", 7, 7),
        ("limit=x&limit=2", 2, 2),
        ("unknown=1", 20, 20),
    ],
)
async def test_the_limit_is_20_and_at_most_100(
    send: Send,
    data_of: Check,
    history_of: History,
    database: MemoryDatabase,
    alice: User,
    query: str,
    shown: int,
    limit: int,
) -> None:
    """A limit above 100 is taken as 100."""
    await database.grant_credits(alice.user_id, 100)
    await history_of(alice, 110)

    data = data_of(await send("GET", f"/api/v1/results?{query}"))

    assert (len(data["results"]), data["limit"], data["total"]) == (shown, limit, 110)


@pytest.mark.parametrize(
    "query",
    [
        "page=-1",
        "page=0",
        "page=1.5",
        "page=x",
        "page=",
        "page=1e3",
        "page=1%00",
        "page=%D9%A1",
        "page=+1",
        "page=" + "9" * 5000,
        f"page={MAX_PAGE + 1}",
        "limit=0",
        "limit=-1",
        "limit=1e9",
        "limit=x",
        "limit=",
        "limit=nan",
        "limit=1.0",
        "limit=0x10",
        "limit=null",
        "project_id=mine",
        "project_id=",
        "project_id=1",
        "project_id=%00",
        "status=",
        "status=finished",
        "status=DONE",
        "status=done,error",
        "cursor=",
        "cursor=garbage",
        "cursor=%00",
        "cursor=%ff",
        "cursor=" + "A" * 64,
        "cursor=" + "A" * 65,
        "cursor=" + "A" * 100_000,
        "cursor=null",
        "&".join(f"a{number}=1" for number in range(33)),
    ],
)
async def test_a_bad_query_is_refused(send: Send, error_of: Check, query: str) -> None:
    """What is out of range, no number or no name of anything is the client's fault."""
    error = error_of(await send("GET", f"/api/v1/results?{query}"), 400, "INVALID_REQUEST")

    assert error["details"][0]["field"] in {
        "page",
        "limit",
        "project_id",
        "status",
        "cursor",
        "query",
    }
    assert len(error["message"]) < 300


@pytest.mark.parametrize("page", [2, 1000, MAX_PAGE])
async def test_a_page_behind_the_last_is_empty(
    send: Send, data_of: Check, history_of: History, alice: User, page: int
) -> None:
    """There is no error in asking too far, at any distance."""
    await history_of(alice, 3)

    data = data_of(await send("GET", f"/api/v1/results?page={page}&limit=100"))

    assert (data["results"], data["total"], data["page"]) == ([], 3, page)
    assert "next_cursor" not in data


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_cursors_walk_every_row_once(
    send: Send, data_of: Check, history_of: History, alice: User, limit: int
) -> None:
    """From page to page by the answer's own cursor, with the numbers of pages."""
    expected = await history_of(alice, 17)

    listed: list[str] = []
    query = f"limit={limit}"
    for page in range(1, 30):
        data = data_of(await send("GET", f"/api/v1/results?{query}"))
        assert (data["page"], data["total"], data["limit"]) == (page, 17, limit)
        listed += ids_of(data)
        if "next_cursor" not in data:
            break
        query = f"limit={limit}&cursor={quote(data['next_cursor'], safe='')}"

    assert listed == expected


async def test_a_walk_is_not_disturbed_by_new_rows(
    send: Send, data_of: Check, history_of: History, alice: User
) -> None:
    """What comes meanwhile stands before the walk's beginning, so nothing repeats or is skipped."""
    expected = await history_of(alice, 9)

    listed: list[str] = []
    query = "limit=2"
    while True:
        data = data_of(await send("GET", f"/api/v1/results?{query}"))
        listed += ids_of(data)
        await history_of(alice, 1)
        if "next_cursor" not in data:
            break
        query = f"limit=2&cursor={data['next_cursor']}"

    assert listed == expected


async def test_a_cursor_sets_the_page_aside(
    send: Send, data_of: Check, history_of: History, alice: User
) -> None:
    """With a cursor, ``page`` is ignored; the limit may change on the way."""
    expected = await history_of(alice, 6)
    cursor = data_of(await send("GET", "/api/v1/results?limit=2"))["next_cursor"]

    data = data_of(await send("GET", f"/api/v1/results?cursor={cursor}&page=3&limit=3"))

    assert ids_of(data) == expected[2:5]
    assert data["page"] == 2


async def test_a_cursor_shows_nobody_elses_rows(
    send: Send,
    data_of: Check,
    history_of: History,
    alice: User,
    bob: User,
    clock: ManualClock,
) -> None:
    """A cursor is a place in time, not a right: another user walks their own rows with it."""
    await history_of(alice, 4)
    theirs = await history_of(bob, 3)
    ahead = Position(clock.now() + timedelta(days=1), uuid4())
    cursor = encode_cursor(Cursor(ahead, page=2, total=9))

    data = data_of(await send("GET", f"/api/v1/results?cursor={cursor}", user=bob))

    assert ids_of(data) == theirs


async def test_results_are_filtered_by_project_and_status(
    send: Send, data_of: Check, task_of: MakeTask, database: MemoryDatabase, alice: User
) -> None:
    """Filters hold for rows, total and further pages alike."""
    inside = [await task_of(alice, PROJECT) for _ in range(3)]
    outside = [await task_of(alice) for _ in range(2)]
    for task in (inside[0], outside[0]):
        await database.complete_task(task.id, Outcome("https://gpu.test/x"))

    async def listed(query: str) -> set[str]:
        data = data_of(await send("GET", f"/api/v1/results?{query}"))
        assert data["total"] == len(data["results"])
        return set(ids_of(data))

    assert await listed(f"project_id={PROJECT}") == {str(task.id) for task in inside}
    assert await listed("status=done") == {str(inside[0].id), str(outside[0].id)}
    assert await listed(f"project_id={PROJECT}&status=done") == {str(inside[0].id)}
    assert await listed("status=error") == set()
    assert await listed(f"project_id={uuid4()}") == set()

    first = data_of(await send("GET", f"/api/v1/results?project_id={PROJECT}&limit=2"))
    rest = data_of(
        await send(
            "GET",
            f"/api/v1/results?project_id={PROJECT}&limit=2&cursor={first['next_cursor']}",
        )
    )
    assert {*ids_of(first), *ids_of(rest)} == {str(task.id) for task in inside}
