"""
Several gateways and workers over one Postgres, one Redis, one bucket and one GPU server.

All are processes on this machine, and each can be killed and started again at any moment::

    with Fleet(folder, gateways=3, workers=2) as fleet:
        fleet.gateways[0].kill()
        fleet.gateways[0].start()
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

import httpx
import psycopg
from attrs import field, frozen

from s3edge.gateway import RandomIds, SystemClock
from s3edge.testing.server import PullProcess, ServerProcess, WorkerProcess
from s3edge.testing.standins.gpu_process import GpuServerProcess
from s3edge.testing.standins.object_store import ObjectStoreProcess
from s3edge.testing.standins.postgres import PostgresServer
from s3edge.testing.standins.redis_process import RedisProcess
from s3edge.values import Tier
from s3edge_embedded.issuer import LocalIssuer
from s3edge_postgres.address import parse_address
from s3edge_postgres.applying import apply
from s3edge_postgres.queue_schema import with_queue


API_SECRET_KEY = "stand-in-api-secret-key"  # noqa: S105 - it opens nothing

_OF_GPU = ("VASTAI_BACKEND_URL", "API_SECRET_KEY", "S3EDGE_BACKEND")


@frozen
class FleetPlan:
    """
    How large a fleet is, and what its settings say.

    Attributes:
        gateways: How many servers there are.
        workers: How many processes take tasks from the queue; with none, the gateways dispatch.
        settings: What the environment of all of them says besides.
        database_options: What they add to the database's URL: ``?pool_size=5``.
    """

    gateways: int = 1
    workers: int = 0
    settings: Mapping[str, str] = field(factory=dict)
    database_options: str = ""


class Fleet:
    """
    The processes, for use as a context manager.

    Args:
        folder: Where they keep their logs, and the key that signs tokens.
        plan: How many there are.

    Attributes:
        postgres: The database server.
        database_url: The database, as its owner reaches it; holds the password.
        redis: Counts requests.
        gpu: Runs the model and keeps its masks; writes outcomes by itself only when told to.
        gateways: The servers.
        workers: Those who take tasks from the queue.
        settings: What the environment of all of them says.
    """

    def __init__(self, folder: Path, plan: FleetPlan) -> None:
        self.postgres: PostgresServer
        self.database_url = ""
        self.redis: RedisProcess
        self.gpu: GpuServerProcess
        self.gateways: Sequence[ServerProcess] = ()
        self.workers: list[WorkerProcess] = []
        self._folder = folder
        self._plan = plan
        self.settings: Mapping[str, str] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start everything, and return when it works."""
        with ExitStack() as stack:
            self.postgres = stack.enter_context(PostgresServer(self._folder))
            self.database_url = self.postgres.create_plain_database("fleet")
            apply(parse_address(self.database_url), with_queue)
            self.redis = stack.enter_context(RedisProcess(self._folder / "redis.log"))
            store = stack.enter_context(ObjectStoreProcess())
            bucket = store.create_bucket()
            self.gpu = stack.enter_context(
                GpuServerProcess(api_key=API_SECRET_KEY, database_url=self.database_url)
            )
            settings = {
                **bucket.r2_settings(),
                "VASTAI_BACKEND_URL": self.gpu.url,
                "API_SECRET_KEY": API_SECRET_KEY,
                "S3EDGE_DATABASE": self.database_url + self._plan.database_options,
                "S3EDGE_DISPATCH": "procrastinate" if self._plan.workers else "inline",
                "S3EDGE_RATE_LIMIT_STORE": self.redis.url,
                **self._plan.settings,
            }
            self.gateways = [
                ServerProcess(self.place(f"gateway-{number}"), settings)
                for number in range(self._plan.gateways)
            ]
            self.settings = settings
            for process in self.gateways:
                stack.callback(_end, process)
                process.start()
            self._stack = stack
            for _ in range(self._plan.workers):
                self.add_worker()
            # Nothing is written into the database but what is asked for.
            self.gpu.control(write=0)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End everything."""
        self._stack.close()

    @property
    def processes(self) -> Sequence[ServerProcess]:
        """Gateways and workers."""
        return [*self.gateways, *self.workers]

    def add_worker(self) -> WorkerProcess:
        """Start another worker, which has the tasks queued from now on."""
        settings = {**self.settings, "S3EDGE_DISPATCH": "procrastinate"}
        worker = WorkerProcess(self.place(f"worker-{len(self.workers)}"), settings)
        self._begin(worker)
        return worker

    def add_puller(self, **settings: str) -> PullProcess:
        """Start a worker that has the model with it, and knows nothing of the GPU server."""
        settings = {
            **{name: text for name, text in self.settings.items() if name not in _OF_GPU},
            **settings,
        }
        puller = PullProcess(self.place(f"worker-{len(self.workers)}"), settings)
        self._begin(puller)
        return puller

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what the database holds, as its owner sees it."""
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(statement.encode(), values).fetchall()

    def execute(self, script: str) -> None:
        """Run a script as the database's owner."""
        with psycopg.connect(self.database_url) as connection:
            connection.execute(script.encode())

    def token(self, user_id: UUID | None = None, tier: Tier = Tier.ENTERPRISE) -> str:
        """Return an access token that every gateway accepts."""
        issuer = LocalIssuer(self._folder / "data", SystemClock(), RandomIds())
        return issuer.issue(user_id or uuid4(), tier)

    def client(self, token: str, gateway: int = 0) -> httpx.Client:
        """Return a client of one gateway."""
        return httpx.Client(
            base_url=self.gateways[gateway].url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
        )

    def _begin(self, worker: WorkerProcess) -> None:
        self._stack.callback(_end, worker)
        worker.start()
        self.workers.append(worker)

    def place(self, name: str) -> Path:
        """Make the folder of one process; all share the data folder, with the key in it."""
        folder = self._folder / name
        folder.mkdir()
        shared = self._folder / "data"
        shared.mkdir(mode=0o700, exist_ok=True)
        (folder / "data").symlink_to(shared, target_is_directory=True)
        return folder


def _end(process: ServerProcess) -> None:
    if process.is_running():
        process.kill()
