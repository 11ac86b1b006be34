"""``s3edge credits grant`` and ``s3edge reconcile``: the operator's side of the money."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar
from uuid import UUID

import anyio
import click

from s3edge.cli.options import Failed, settings_of, with_environment
from s3edge.config import Settings, build_database
from s3edge.gateway import opened
from s3edge.ports import Database
from s3edge.rules.money import MAX_GRANT, faults_of


T = TypeVar("T")


@click.group(name="credits")
def credits_group() -> None:
    """Give users credits."""


@credits_group.command()
@click.argument("user", type=click.UUID)
@click.argument("amount", metavar="N", type=click.IntRange(1, MAX_GRANT))
@with_environment
def grant(environ: Mapping[str, str], user: UUID, amount: int) -> None:
    """Give USER N credits and print the balance."""

    async def run(database: Database) -> int:
        return await database.grant_credits(user, amount)

    click.echo(anyio.run(_with_database, settings_of(environ), run))


@click.command()
@with_environment
def reconcile(environ: Mapping[str, str]) -> None:
    """Check that every user's credits add up; print what does not."""

    async def run(database: Database) -> tuple[int, int]:
        accounts = wrong = 0
        async for account in database.accounts():
            accounts += 1
            for fault in faults_of(account):
                wrong += 1
                click.echo(f"{account.user_id}: {fault}")
        return accounts, wrong

    accounts, wrong = anyio.run(_with_database, settings_of(environ), run)
    if wrong:
        raise Failed(f"the credits do not add up; faults: {wrong}, accounts: {accounts}")
    click.echo(f"accounts: {accounts}, nothing wrong")


async def _with_database(settings: Settings, run: Callable[[Database], Awaitable[T]]) -> T:
    """Run with the deployment's database open, and nothing else of it at work."""
    database = build_database(settings)
    async with opened([database]):
        return await run(database)
