"""Which of the queue's own scripts are applied, and when."""

import psycopg

from s3edge_postgres.address import parse_address
from s3edge_postgres.applying import apply, own_scripts
from s3edge_postgres.migrations import migrations
from s3edge_postgres.queue_schema import queue_scripts, with_queue
from tests.unit.postgres.conftest import Postgres


def test_a_new_queue_is_made_whole() -> None:
    """One script, named for the last change that it contains; afterwards there is nothing to do."""
    [whole] = queue_scripts([])
    assert whole.name.startswith("procrastinate_schema_")
    assert "create schema procrastinate" in whole.sql
    assert queue_scripts([whole.name]) == []


def test_an_older_queue_gets_the_changes_since() -> None:
    """Each is a script of its own, in order, and none that the queue was made with."""
    before = "procrastinate_schema_03.01.00_50_post_add_heartbeat.sql"
    names = [script.name for script in queue_scripts([before])]
    assert names == sorted(names)
    assert names[:2] == [
        "procrastinate_change_03.02.00_01_pre_batch_defer_jobs.sql",
        "procrastinate_change_03.02.00_50_post_batch_defer_jobs.sql",
    ]


def test_a_queue_is_added_to_a_schema_that_is_there(postgres: Postgres) -> None:
    """A deployment that begins to use one applies its scripts alone, once."""
    url = postgres.server.create_plain_database("queue_later")
    address = parse_address(url)
    apply(address, own_scripts)
    [whole] = queue_scripts([])
    assert apply(address, with_queue).names == [whole.name]
    assert apply(address, with_queue).names == []
    assert apply(address, own_scripts).names == []
    with psycopg.connect(url) as connection:
        connection.execute("select s3edge.set_dispatch('procrastinate')")
        # What is ours still means the public tables, whatever path the queue's scripts had.
        [(schema,)] = connection.execute(
            "select relnamespace::regnamespace::text from pg_class where relname = 'users_profile'"
        )
        assert schema == "public"
    assert [migration.name for migration in migrations()][-1] < whole.name
