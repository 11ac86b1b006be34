"""
All that a deployment in the cloud stands on, as processes on this machine.

Supabase in front of a real Postgres with the schema applied, an object store and a GPU server. Between
them and the gateway stand proxies, so that each can be taken away while requests run::

    with PostgresServer(folder) as postgres, Cloud(folder, postgres) as cloud:
        settings = cloud.settings()  # for the environment of `s3edge serve`
        with cloud.without("storage", "hang"):
            ...
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg

from s3edge.testing.standins.fault_proxy import FaultProxy, Mode
from s3edge.testing.standins.gpu_process import GpuServerProcess
from s3edge.testing.standins.object_store import (
    ACCESS_KEY_ID,
    SECRET_ACCESS_KEY,
    ObjectStoreProcess,
    StandInBucket,
)
from s3edge.testing.standins.postgres import Database, PostgresServer
from s3edge.testing.standins.supabase import SupabaseProcess
from s3edge_postgres.migrations import migrations


Dependency = Literal["supabase", "storage", "backend"]

API_SECRET_KEY = "stand-in-api-secret-key"  # noqa: S105 - it opens nothing

WAIT_TIMEOUT_S = 60.0
_POLL_S = 0.05


class Cloud:
    """
    The processes, for use as a context manager.

    Args:
        folder: Where their logs are kept.
        postgres: A running server; a database is made on it.

    Attributes:
        postgres: The server.
        database: The project's.
        supabase: The project, as it is reached without the proxy.
        bucket: Where images and masks are.
        gpu: The GPU server, which stores masks and writes nothing into the database.
    """

    def __init__(self, folder: Path, postgres: PostgresServer) -> None:
        self.postgres = postgres
        self.database: Database
        self.supabase: SupabaseProcess
        self.bucket: StandInBucket
        self.gpu: GpuServerProcess
        self._folder = folder
        self._proxies: dict[Dependency, FaultProxy] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start everything."""
        with ExitStack() as stack:
            self.database = self.postgres.create_database(f"cloud_{uuid4().hex}")
            for migration in migrations():
                self.database.apply(migration.sql)
            store = stack.enter_context(ObjectStoreProcess())
            self.bucket = store.create_bucket()
            self._proxies["storage"] = stack.enter_context(_proxy(store.endpoint))
            self.supabase = stack.enter_context(self.supabase_of(self.database))
            self._proxies["supabase"] = stack.enter_context(_proxy(self.supabase.url))
            self.gpu = stack.enter_context(self.gpu_server())
            self._proxies["backend"] = stack.enter_context(_proxy(self.gpu.url))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything."""
        self._stack.close()

    def supabase_of(self, database: Database) -> SupabaseProcess:
        """Return a project in front of a database, not started."""
        folder = self._folder / database.name
        folder.mkdir()
        return SupabaseProcess(folder, database)

    def gpu_server(self, *, supabase_url: str = "", service_key: str = "") -> GpuServerProcess:
        """
        Return a GPU server that stores into the bucket, not started.

        Args:
            supabase_url: Where it writes outcomes by itself, if at all.
            service_key: With which key.
        """
        return GpuServerProcess(
            api_key=API_SECRET_KEY,
            storage=f"{self.bucket.endpoint}/{self.bucket.name}",
            access_key_id=ACCESS_KEY_ID,
            secret_access_key=SECRET_ACCESS_KEY,
            public_base_url=f"{self._proxies['storage'].url}/{self.bucket.name}",
            supabase_url=supabase_url,
            service_key=service_key,
        )

    def settings(self) -> Mapping[str, str]:
        """Return what the environment says of a deployment that stands on all of it."""
        return {
            "SUPABASE_URL": self._proxies["supabase"].url,
            "SUPABASE_ANON_KEY": self.supabase.anon_key,
            "SUPABASE_SERVICE_ROLE_KEY": self.supabase.service_key,
            "VASTAI_BACKEND_URL": self._proxies["backend"].url,
            "API_SECRET_KEY": API_SECRET_KEY,
            **self.bucket.r2_settings(),
            "R2_ENDPOINT": self._proxies["storage"].url,
        }

    def secrets(self) -> Sequence[str]:
        """Return what must be in no log."""
        return [
            self.supabase.service_key,
            self.supabase.legacy_service_key,
            self.supabase.jwt_secret,
            API_SECRET_KEY,
            SECRET_ACCESS_KEY,
        ]

    def token(self, user_id: UUID | str | None = None, **options: Any) -> str:
        """Return an access token whose issuer is the project as the gateway knows it."""
        claims = {"iss": f"{self._proxies['supabase'].url}/auth/v1", **options.pop("claims", {})}
        return self.supabase.sign(user_id, claims=claims, **options)

    @contextmanager
    def without(self, dependency: Dependency, mode: Mode | str) -> Iterator[None]:
        """Take a dependency away, and give it back."""
        proxy = self._proxies[dependency]
        proxy.mode = Mode(mode)
        try:
            yield
        finally:
            proxy.mode = Mode.PASS

    def reset(self) -> None:
        """Have everything serve again, at the usual prices, and end what earlier servers left open."""
        for proxy in self._proxies.values():
            proxy.mode = Mode.PASS
        self.gpu.control(fail=[], silent=False, garbage=False, latency_s=0, model_loaded=True)
        self.set_terms()
        self.execute(
            "update public.segmentation_results set status = 'error'"
            " where status in ('pending', 'processing')"
        )

    def set_terms(
        self, *, initial_credits: int = 100, segment_cost: int = 1, task_deadline_s: int = 900
    ) -> None:
        """Set what the database grants and charges, as an operator would by hand."""
        self.execute(
            f"select s3edge.configure({initial_credits}, {segment_cost}, {task_deadline_s})"
        )

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what the database holds, as its owner sees it."""
        with psycopg.connect(self.database.url("postgres")) as connection:
            return connection.execute(statement.encode(), values).fetchall()

    def execute(self, script: str) -> None:
        """Run a script as the database's owner."""
        self.database.apply(script)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """
        Return when the condition holds.

        Raises:
            TimeoutError: It did not within ``WAIT_TIMEOUT_S``.
        """
        ends_at = time.monotonic() + WAIT_TIMEOUT_S
        while not condition():
            if time.monotonic() > ends_at:
                raise TimeoutError
            time.sleep(_POLL_S)


def _proxy(url: str) -> FaultProxy:
    parts = urlsplit(url)
    return FaultProxy(parts.hostname or "", parts.port or 0)
