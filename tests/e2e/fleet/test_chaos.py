"""Gateways and workers are killed all the time, and everything that was accepted ends, paid once."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from uuid import uuid4

import anyio
import pytest

from s3edge.testing.chaos import Customer, Killer, Orders, order
from s3edge.testing.standins.fleet import Fleet, FleetPlan
from tests.e2e.fleet.conftest import StartFleet


USERS = 20

SOAK_S = float(os.environ.get("SOAK_S", "0"))
"""How long users go on at the least, for `make soak`."""

TASKS_EACH = 100 if SOAK_S else 25
"""With 20 users, 2,000 tasks in a soak; in the tests of every day, a quarter of it."""

TASKS_EACH_INLINE = 20

INITIAL_CREDITS = 1_000_000

KILL_EVERY_S = 1.0

MIN_KILLS = 3
"""However slowly a busy machine starts again what was killed."""

END_TIMEOUT_S = 120.0
"""After the last kill, how long the tasks that are left may take."""

SETTINGS = {
    "S3EDGE_INITIAL_CREDITS": str(INITIAL_CREDITS),
    "S3EDGE_PREDICT_TIMEOUT_S": "3",
    "S3EDGE_RATE_LIMITS": "enterprise.segment=1000000/minute",
    "S3EDGE_LOG": "warning",
}

AUDIT = """
create table public.ends (task_id uuid, status text, mask_image_url text);
create function public.note_end() returns trigger language plpgsql as $$
begin
    insert into public.ends values (new.id, new.status, new.mask_image_url);
    return null;
end
$$;
create trigger note_end after update on public.segmentation_results
for each row when (
    new.status in ('done', 'error') and (
        old.status is distinct from new.status
        or old.mask_image_url is distinct from new.mask_image_url
        or old.labels is distinct from new.labels
        or old.metadata is distinct from new.metadata
    )
)
execute function public.note_end();
"""
"""Counts what any answer, the first or a later one, changes of a task's end."""


def customers_of(fleet: Fleet, image: bytes) -> Sequence[Customer]:
    """Return users who have signed in and uploaded an image."""
    customers = []
    for _ in range(USERS):
        user_id = uuid4()
        token = fleet.token(user_id)
        with fleet.client(token) as client:
            answer = client.post("/api/v1/upload", files={"file": ("i.png", image, "image/png")})
        customers.append(Customer(user_id, token, answer.json()["data"]["image_id"]))
    return customers


def wait_until_all_have_ended(fleet: Fleet) -> None:
    """Return when no task is open any more."""
    ends_at = time.monotonic() + END_TIMEOUT_S
    while (open_tasks := fleet.query("select s3edge.backlog(100000)")) != [(0,)]:
        assert time.monotonic() < ends_at, f"{open_tasks} tasks have not ended"
        time.sleep(0.2)


def assert_nothing_was_lost(fleet: Fleet, orders: Orders, users: Sequence[Customer]) -> None:
    """Check every promise: each accepted task is there, has ended, and is paid once or not at all."""
    assert orders.contradictions == []
    rows = fleet.query(
        "select id, user_id, idempotency_key, status from public.segmentation_results"
    )
    assert {(user_id, key): task_id for task_id, user_id, key, _ in rows} == orders.accepted
    assert len(rows) == len(orders.accepted)
    assert {status for *_, status in rows} <= {"done", "error"}
    done = Counter(user_id for _, user_id, _, status in rows if status == "done")
    balances = dict(fleet.query("select id, credits from public.users_profile"))
    for user in users:
        assert balances[user.user_id] == INITIAL_CREDITS - done[user.user_id]
    reconciled = fleet.gateways[0].run("reconcile")
    assert (reconciled.returncode, reconciled.stderr) == (0, "")
    assert reconciled.stdout == f"accounts: {USERS}, nothing wrong\n"
    twice = fleet.query(
        "select task_id, count(*) from public.ends group by task_id having count(*) > 1"
    )
    assert twice == []
    assert fleet.query("select count(*) from public.ends") == [(len(rows),)]


@pytest.mark.timeout(480 + END_TIMEOUT_S + SOAK_S)
@pytest.mark.parametrize(
    ("workers", "each"), [(2, TASKS_EACH), (0, TASKS_EACH_INLINE)], ids=["queue", "inline"]
)
def test_nothing_is_lost_or_paid_twice(
    start_fleet: StartFleet, scene: bytes, workers: int, each: int
) -> None:
    """Whoever dies, and although the database restarts and the GPU fails, hangs and repeats itself."""
    fleet = start_fleet(FleetPlan(gateways=3, workers=workers, settings=SETTINGS))
    fleet.execute(AUDIT)
    users = customers_of(fleet, scene)
    fleet.gpu.control(fail=0.10, hang=0.02, write=0.05, write_late=0.5, duplicate=True)
    started = time.monotonic()
    with Killer(fleet.processes, KILL_EVERY_S) as killer:
        orders = anyio.run(_order_and_restart_the_database, fleet, users, each)
        submitted_s = time.monotonic() - started
    wait_until_all_have_ended(fleet)
    assert_nothing_was_lost(fleet, orders, users)
    statuses = dict(
        fleet.query("select status, count(*) from public.segmentation_results group by 1")
    )
    gpu = {name: count for name, count in fleet.gpu.report().items() if isinstance(count, int)}
    # It was as bad as it was meant to be, and yet most tasks were done.
    assert killer.kills >= MIN_KILLS
    assert min(gpu["hung"], gpu["written"], gpu["written_late"]) > 0
    assert statuses["done"] > 0.9 * len(orders.accepted)
    print(  # noqa: T201 - the figures of a soak
        f"{len(orders.accepted)} tasks of {USERS} users in {orders.sent} requests,"
        f" {submitted_s:.0f} s to submit, {time.monotonic() - started:.0f} s in all;"
        f" {killer.kills} kills; {statuses}; the GPU: {gpu}"
    )


async def _order_and_restart_the_database(
    fleet: Fleet, users: Sequence[Customer], each: int
) -> Orders:
    """Have the users order, and the database restart in the middle of it."""
    orders: list[Orders] = []

    async def submit() -> None:
        orders.append(
            await order(
                users, lambda: [gateway.url for gateway in fleet.gateways], each=each, for_s=SOAK_S
            )
        )

    async with anyio.create_task_group() as group:
        group.start_soon(submit)
        while fleet_size(fleet) < USERS * each // 2:
            await anyio.sleep(0.5)
        await anyio.to_thread.run_sync(fleet.postgres.restart)
    return orders[0]


def fleet_size(fleet: Fleet) -> int:
    """Return how many tasks there are."""
    [(count,)] = fleet.query("select count(*) from public.segmentation_results")
    return int(count)
