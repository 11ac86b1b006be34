"""
A real PostgreSQL, laid out as a Supabase project, for tests.

Nothing is installed and no container runs; it takes about a second to start, as root too::

    with PostgresServer(tmp_path) as server:
        base = server.create_database("base", grant_defaults="new")
        base.apply(Path("0001_tables.sql").read_text())         # as the migrations' owner
        one = server.create_database("one", template="base")    # a copy, in some 30 ms
        psycopg.connect(one.url("authenticator"))

Servers live side by side, each with a port and data of its own. One ends with its ``with`` block, or
when the process that started it is gone, however that ended. While a database is copied nobody may be
connected to it.

What differs from Supabase: no extensions but ``plpgsql`` and ``vector``, so no ``safeupdate`` either.
"""

from pathlib import Path
from types import TracebackType
from typing import Literal, Self, get_args
from urllib.parse import quote

import psycopg
from attrs import field, frozen
from psycopg import sql

from s3edge.testing.standins.postgres_process import SUPERUSER, PostgresProcess
from s3edge.testing.standins.supabase_layout import (
    LOGINS,
    OLD_DEFAULT_PRIVILEGES,
    ROLES,
    SCHEMAS,
)
from s3edge.testing.standins.watched import HOST


Role = Literal["authenticator", "postgres", "superuser", "supabase_auth_admin"]
"""Who can log in: PostgREST, the migrations' owner, Supabase's own superuser, Supabase Auth."""

GrantDefaults = Literal["old", "new"]
"""
What becomes of a new table or function in ``public``.

``old``, before 2026-05-30: granted to ``anon``, ``authenticated`` and ``service_role``; ``new``: to
nobody. https://supabase.com/docs/guides/api/securing-your-api
"""


@frozen
class Database:
    """
    A database of a running server.

    Attributes:
        name: Its name.
        port: Where the server listens on 127.0.0.1.
        password: Of every role that can log in.
    """

    name: str
    port: int
    password: str = field(repr=False)

    def url(self, role: Role) -> str:
        """Return the connection string of a role; it holds the password."""
        user = SUPERUSER if role == "superuser" else role
        return f"postgresql://{user}:{self.password}@{HOST}:{self.port}/{quote(self.name, safe='')}"

    def apply(self, script: str, role: Role = "postgres") -> None:
        """
        Run a script of any number of statements in one transaction, as a migration is applied.

        Raises:
            psycopg.Error: The database refused it; nothing of it remains.
        """
        with psycopg.connect(self.url(role)) as connection:
            connection.execute(script.encode())


class PostgresServer:
    """
    A running PostgreSQL with Supabase's roles, for use as a context manager.

    Args:
        folder: Where its log is kept, as ``postgres.log``.
    """

    def __init__(self, folder: Path) -> None:
        self._process = PostgresProcess(folder / "postgres.log")
        self._layouts: dict[GrantDefaults, str] = {}

    def __enter__(self) -> Self:
        """
        Start the server and make the roles.

        Raises:
            RuntimeError: It did not start; the message says why.
        """
        try:
            self._process.create()
            self._process.start()
            self._create_roles()
        except BaseException:
            self._process.remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the server and remove its data."""
        self._process.remove()

    @property
    def pid(self) -> int:
        """
        The process's id.

        Raises:
            RuntimeError: It does not run.
        """
        return self._process.pid

    @property
    def log(self) -> Path:
        """What it wrote, over all its starts."""
        return self._process.log

    def stop(self) -> None:
        """End it at once, as a crash would, and keep its data; every connection breaks."""
        self._process.stop()

    def start(self) -> None:
        """
        Start it again after ``stop``, on the port that it had, and return when it answers.

        Raises:
            RuntimeError: It did not start; the message says why.
        """
        self._process.start()

    def restart(self) -> None:
        """End it at once and start it again; what was committed is still there."""
        self.stop()
        self.start()

    def create_database(
        self, name: str, *, grant_defaults: GrantDefaults = "new", template: str | None = None
    ) -> Database:
        """
        Make a database that ``postgres`` owns, laid out as a Supabase project.

        Args:
            name: Of the new database.
            grant_defaults: The default privileges in ``public``.
            template: A database of this server to copy instead, default privileges and all.

        Raises:
            psycopg.Error: The name is taken, or the template is missing or in use.
        """
        self._copy(name, template or self._layout(grant_defaults))
        return self.database(name)

    def create_plain_database(self, name: str) -> str:
        """
        Make a database that has nothing of Supabase in it.

        Returns:
            The connection string of its owner, a role of the same name without further rights.

        Raises:
            psycopg.Error: The name is taken.
        """
        owner = sql.Identifier(name)
        with self._process.connect() as connection:
            connection.execute(
                sql.SQL("create role {} login password {}").format(
                    owner, sql.Literal(self._process.password)
                )
            )
            connection.execute(
                sql.SQL("create database {} owner {} template template0").format(owner, owner)
            )
        return self.database(name).url("postgres").replace("//postgres:", f"//{quote(name)}:")

    def database(self, name: str) -> Database:
        """Return the database of that name."""
        return Database(name, self._process.port, self._process.password)

    def drop_database(self, name: str) -> None:
        """
        Remove a database, whoever is connected to it.

        Raises:
            psycopg.Error: There is none of that name.
        """
        with self._process.connect() as connection:
            connection.execute(
                sql.SQL("drop database {} with (force)").format(sql.Identifier(name))
            )

    def _create_roles(self) -> None:
        with self._process.connect() as connection:
            connection.execute(ROLES)
            for login in LOGINS:
                connection.execute(
                    sql.SQL("alter role {} password {}").format(
                        sql.Identifier(login), sql.Literal(self._process.password)
                    )
                )

    def _layout(self, grant_defaults: GrantDefaults) -> str:
        """Return the name of a laid-out database for new ones to be copied from."""
        if grant_defaults not in get_args(GrantDefaults):
            raise ValueError("grant_defaults is 'old' or 'new'")
        if grant_defaults not in self._layouts:
            name = f"supabase_{grant_defaults}"
            self._copy(name, "template0")
            database = self.database(name)
            database.apply(SCHEMAS, "superuser")
            if grant_defaults == "old":
                database.apply(OLD_DEFAULT_PRIVILEGES)
            self._layouts[grant_defaults] = name
        return self._layouts[grant_defaults]

    def _copy(self, name: str, template: str) -> None:
        with self._process.connect() as connection:
            connection.execute(
                sql.SQL("create database {} owner postgres template {} strategy file_copy").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
