"""``s3edge worker``."""

import signal
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import anyio
import click
from anyio.abc import TaskStatus

from s3edge.cli.options import WRONG_USAGE, Failed, settings_of, with_environment
from s3edge.cli.segment import DEFAULT_URL
from s3edge.config import Deployment, Settings, build, check_opens
from s3edge.config.shareable import check_shareable
from s3edge.plugins import scheme_of
from s3edge.ports import INLINE
from s3edge.worker import run_worker


STOPPED = "Stopped; what had not ended goes to other workers."

Load = Callable[[], Awaitable[bool]]


@click.command()
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1000),
    help="How many tasks run at once, with cpu: one a core at the most"
    " [S3EDGE_DISPATCH_CONCURRENCY, default 64].",
)
@with_environment
def worker(environ: Mapping[str, str], concurrency: int | None) -> None:
    """Run tasks from the queue that S3EDGE_DISPATCH names."""
    if concurrency is not None:
        environ = {**environ, "S3EDGE_DISPATCH_CONCURRENCY": str(concurrency)}
    settings = settings_of(environ)
    check_dispatch(settings)
    if scheme_of(settings.backend) == "queue":
        message = (
            "S3EDGE_BACKEND: queue: is for gateways, and this worker needs a model; set"
            " VASTAI_BACKEND_URL, or start: s3edge inference work"
        )
        raise Failed(message, WRONG_USAGE)
    url = settings.public_url or DEFAULT_URL
    deployment = build(settings, bound_url=url)
    check_shareable(settings)
    anyio.run(partial(check_opens, settings, bound_url=url))
    run_until_stopped(deployment)
    click.echo(STOPPED, err=True)


def check_dispatch(settings: Settings) -> None:
    """
    Refuse to work where there is no queue.

    Raises:
        Failed: Says what to set.
    """
    if settings.dispatch == INLINE:
        message = (
            "S3EDGE_DISPATCH=inline: the servers run tasks by themselves, so there is no queue to"
            " work on; set S3EDGE_DISPATCH=procrastinate here and there"
        )
        raise Failed(message, WRONG_USAGE)


def run_until_stopped(
    deployment: Deployment,
    load: Load | None = None,
    until_failed: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """
    Run a worker until a signal asks it to stop.

    Args:
        deployment: Its gateway runs the tasks that its queue hands out.
        load: What must be done before; returns whether it worked, and else nothing is taken.
        until_failed: Returns when no task can be run any more, which stops it as a signal does.
    """
    anyio.run(_work, deployment, load, until_failed, backend_options={"use_uvloop": True})


async def _work(
    deployment: Deployment,
    load: Load | None,
    until_failed: Callable[[], Awaitable[None]] | None,
) -> None:
    gateway, queue = deployment.gateway, deployment.queue
    assert queue is not None  # noqa: S101 - for the type checker: there is one where dispatch says so
    stop = anyio.Event()

    async def prepare() -> None:
        if load is not None and not await load():
            stop.set()
            return
        click.echo(
            f"Working on the queue, {gateway.concurrency} tasks at once; stop with Ctrl-C.",
            err=True,
        )

    async def stop_when_failed(until_failed: Callable[[], Awaitable[None]]) -> None:
        await until_failed()
        stop.set()

    async with anyio.create_task_group() as group:
        if until_failed is not None:
            group.start_soon(stop_when_failed, until_failed)
        await group.start(_stop_by_signal, stop, gateway.options.grace_s)
        await run_worker(gateway, queue, stop, prepare)
        group.cancel_scope.cancel()


async def _stop_by_signal(
    stop: anyio.Event, grace_s: float, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Stop in an orderly way on the first signal; while it is under way, further ones change nothing."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            if not stop.is_set():
                stop.set()
                click.echo(f"Stopping; what runs has {grace_s:g} s to end.", err=True)
