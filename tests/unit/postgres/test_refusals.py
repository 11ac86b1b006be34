"""What the database refuses reaches callers as an error that they know, also on Supabase's Postgres."""

from collections.abc import AsyncIterator, Iterator
from uuid import UUID, uuid4

import psycopg
import pytest
from attrs import evolve

from s3edge.errors import Code, EdgeError
from s3edge.gateway import SystemClock
from s3edge.rules.money import MAX_GRANT
from s3edge.testing.contracts.database import new_task
from s3edge.testing.contracts.refusal import refused
from s3edge.testing.standins.postgres import PostgresServer
from s3edge.values import Outcome, User
from s3edge_postgres.address import parse_address
from s3edge_postgres.applying import apply, own_scripts
from s3edge_postgres.database import PostgresDatabase
from tests.unit.postgres.conftest import TERMS


pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a Supabase project's Postgres, with the schema applied by its owner."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        url = server.create_database("project").url("postgres")
        apply(parse_address(url), own_scripts)
        yield url


@pytest.fixture
async def database(url: str) -> AsyncIterator[PostgresDatabase]:
    """Open the adapter."""
    async with PostgresDatabase(parse_address(url), SystemClock(), TERMS) as database:
        await database.profile(User(uuid4()))
        yield database


def sign_up(url: str, *, is_anonymous: bool = False) -> UUID:
    """Make a user as Supabase Auth does."""
    user_id = uuid4()
    with psycopg.connect(url) as connection:
        connection.execute(
            "insert into auth.users (id, is_anonymous) values (%s, %s)", (user_id, is_anonymous)
        )
    return user_id


async def test_who_signed_up_has_credits(url: str, database: PostgresDatabase) -> None:
    """Users have the initial ones, anonymous ones none, and strangers none."""
    user, anonymous = sign_up(url), sign_up(url, is_anonymous=True)
    balances = [
        (await database.profile(User(user_id))).credits for user_id in (user, anonymous, uuid4())
    ]
    assert balances == [TERMS.initial_credits, 0, 0]
    assert (
        await database.reserve_task(User(user), new_task())
    ).credits == TERMS.initial_credits - 1
    with refused(Code.INSUFFICIENT_CREDITS):
        await database.reserve_task(User(anonymous), new_task())


async def test_a_user_who_is_gone_is_refused(url: str, database: PostgresDatabase) -> None:
    """A token may outlive its user; the operator hears it in other words."""
    with refused(Code.AUTH_INVALID):
        await database.reserve_task(User(uuid4()), new_task())
    with refused(Code.NOT_FOUND):
        await database.grant_credits(uuid4(), 1)


async def test_a_balance_has_an_end(url: str, database: PostgresDatabase) -> None:
    """What no balance can be is the operator's mistake."""
    user_id = sign_up(url)
    with psycopg.connect(url) as connection:
        connection.execute(
            "update users_profile set credits = 9223372036854775000 where id = %s", (user_id,)
        )
    with refused(Code.INVALID_REQUEST):
        await database.grant_credits(user_id, MAX_GRANT)


async def test_what_the_gateway_would_not_send_is_refused(
    url: str, database: PostgresDatabase
) -> None:
    """The database checks again; a shortfall is said in numbers."""
    user = User(sign_up(url))
    with refused(Code.INVALID_REQUEST):
        await database.reserve_task(user, evolve(new_task(), text_prompt=""))
    await database.grant_credits(user.user_id, 1)
    with psycopg.connect(url) as connection:
        connection.execute("update users_profile set credits = 0 where id = %s", (user.user_id,))
    with pytest.raises(EdgeError, match="costs 1 credit; you have 0 credits"):
        await database.reserve_task(user, new_task())


async def test_what_no_text_can_hold_is_left_out(url: str, database: PostgresDatabase) -> None:
    """A model's words may contain NUL, which Postgres keeps in no text."""
    user = User(sign_up(url))
    done, failed = [(await database.reserve_task(user, new_task())).task for _ in range(2)]
    outcome = Outcome("https://storage.example/m", ["a\x00b"], {"k\x00": [{"n": "\x00"}]})
    assert await database.complete_task(done.id, outcome)
    assert await database.fail_task(failed.id, Code.INFERENCE_FAILED, "It\x00 broke.")
    found = [await database.task(user, task.id) for task in (done, failed)]
    assert [task is not None and (task.labels, task.metadata) for task in found] == [
        (["ab"], {"k": [{"n": ""}]}),
        ([], {}),
    ]
    assert found[1] is not None
    assert found[1].error_message == "It broke."


async def test_a_missing_schema_is_said_to_the_operator(
    url: str, database: PostgresDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """Users hear that it cannot be used now; the log names the command."""
    with psycopg.connect(url) as connection:
        connection.execute("alter function s3edge.backlog(integer) rename to gone")
    try:
        with refused(Code.SERVICE_UNAVAILABLE):
            await database.backlog()
    finally:
        with psycopg.connect(url) as connection:
            connection.execute("alter function s3edge.gone(integer) rename to backlog")
    assert "run: s3edge migrate" in caplog.text
