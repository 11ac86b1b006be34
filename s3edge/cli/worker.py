"""``s3edge worker``."""

import signal
from collections.abc import Mapping
from functools import partial

import anyio
import click
from anyio.abc import TaskStatus

from s3edge.cli.options import WRONG_USAGE, Failed, settings_of, with_environment
from s3edge.cli.segment import DEFAULT_URL
from s3edge.config import build, check_opens
from s3edge.gateway import Gateway
from s3edge.plugins import scheme_of
from s3edge.ports import TaskQueue
from s3edge.worker import run_worker


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
    url = settings.public_url or DEFAULT_URL
    deployment = build(settings, bound_url=url)
    if deployment.queue is None:
        message = (
            "S3EDGE_DISPATCH=inline: the servers run tasks by themselves, so there is no queue to"
            " work on; set S3EDGE_DISPATCH=procrastinate here and there"
        )
        raise Failed(message, WRONG_USAGE)
    if settings.public_url is None and scheme_of(settings.storage) == "file":
        message = (
            "S3EDGE_PUBLIC_URL: a worker needs it where images are files: how the server that has them"
            " is reached; let all of them have the same"
        )
        raise Failed(message, WRONG_USAGE)
    anyio.run(partial(check_opens, settings, bound_url=url))
    anyio.run(_work, deployment.gateway, deployment.queue, backend_options={"use_uvloop": True})


async def _work(gateway: Gateway, queue: TaskQueue) -> None:
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        await group.start(_stop_by_signal, stop)
        click.echo(
            f"Working on the queue, {gateway.concurrency} tasks at once; stop with Ctrl-C.",
            err=True,
        )
        await run_worker(gateway, queue, stop)
        click.echo("Stopped; what had not ended goes to other workers.", err=True)
        group.cancel_scope.cancel()


async def _stop_by_signal(
    stop: anyio.Event, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Stop in an orderly way on the first signal; while it is under way, further ones change nothing."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            stop.set()
