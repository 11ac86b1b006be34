"""
How many requests the doors answer, of the same work.

On SQLite as a server without settings does it, with the model in processes beside it; and on Postgres
with tasks in a queue, from which workers elsewhere would take them.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

from s3edge.testing.server import ServerProcess
from s3edge.testing.standins.postgres import PostgresServer
from s3edge.testing.wsgi_server import APP, CORES, HOOKS, GunicornProcess, WaitressProcess
from tests.benchmarks.load import DEFAULTS, SECONDS, made, rate, requests_of


THREADS = 16
ROUNDS = 5

STARLETTE = "Starlette, 1 process"

ON_A_CORE = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\n"

SERVERS: Mapping[str, Callable[[Path, Mapping[str, str]], ServerProcess]] = {
    STARLETTE: ServerProcess,
    "gunicorn": partial(GunicornProcess, threads=THREADS),
    "gunicorn, on a core": partial(GunicornProcess, threads=THREADS, hooks=HOOKS + CORES),
    "gunicorn, 2 processes": partial(GunicornProcess, threads=THREADS // 2, workers=2),
    "gunicorn, 2, each on a core": partial(
        GunicornProcess, threads=THREADS // 2, workers=2, hooks=HOOKS + CORES
    ),
    "waitress": partial(WaitressProcess, threads=THREADS),
    "waitress, on a core": partial(WaitressProcess, threads=THREADS, source=ON_A_CORE + APP),
}
"""Each as it comes, and with each process on a core of its own, as the documentation advises."""


def compare_doors(folder: Path) -> None:
    """Print a table for each way to keep tasks."""
    compare("SQLite, the model beside it", made(folder / "sqlite"), DEFAULTS)
    with PostgresServer(folder) as postgres:
        settings = {
            **DEFAULTS,
            # All processes have their own.
            "S3EDGE_DATABASE": f"{postgres.create_plain_database('doors')}?pool_size=8",
            "S3EDGE_DISPATCH": "procrastinate",
            "S3EDGE_MAX_BACKLOG": "100000",
        }
        ServerProcess(made(folder / "migrated"), settings).run("migrate").check_returncode()
        compare("Postgres, tasks in a queue", made(folder / "postgres"), settings)


def compare(title: str, folder: Path, settings: Mapping[str, str]) -> None:
    """Measure all servers by turns; print medians of several rounds, and ratios to Starlette's."""
    with ExitStack() as stack:
        servers: dict[str, ServerProcess] = {}
        for name, make in SERVERS.items():
            servers[name] = make(made(folder / str(len(servers))), dict(settings))
            stack.callback(servers[name].end)
            servers[name].start()
        asked = {name: requests_of(server) for name, server in servers.items()}
        measured: dict[str, list[str]] = {name: [] for name in servers}
        for request_name in asked[STARLETTE]:
            rounds = [
                {
                    name: asyncio.run(rate(server.url, asked[name][request_name], SECONDS / 3))
                    for name, server in servers.items()
                }
                for _ in range(ROUNDS)
            ]
            rates = {name: median(each[name] for each in rounds) for name in servers}
            for name, one in rates.items():
                measured[name].append(f"{one:>14.0f}{one / rates[STARLETTE]:>7.2f}")
        print(f"\n{title}; {THREADS} threads")
        print(" " * 28 + "".join(f"{request_name:>21}" for request_name in asked[STARLETTE]))
        for name, cells in measured.items():
            print(f"{name:<28}{''.join(cells)}", flush=True)
