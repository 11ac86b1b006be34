"""``s3edge inference work``."""

import logging
import math
from collections.abc import Mapping

import anyio
import click

from s3edge.cli.inference import needing_model, one_line, predictor_option
from s3edge.cli.options import Failed, settings_of, with_environment
from s3edge.cli.segment import DEFAULT_URL
from s3edge.cli.worker import STOPPED, check_dispatch, run_until_stopped
from s3edge.errors import EdgeError
from s3edge.ports import ObjectStorage


RETRY_S = 1.0
"""How often a storage that cannot be used is tried again."""

SAY_EVERY_S = 30.0
"""How often that is said, as of a database."""

_log = logging.getLogger(__name__)


@click.command("work")
@predictor_option
@with_environment
def work(environ: Mapping[str, str], predictor: str | None) -> None:
    """Run tasks from the queue with the model that S3EDGE_PREDICTOR names, and listen on no port."""
    if predictor is not None:
        environ = {**environ, "S3EDGE_PREDICTOR": predictor}
    settings = settings_of(environ)
    check_dispatch(settings)
    with needing_model():
        from s3edge.config.pull import build_pull  # noqa: PLC0415 - as for the server

        pull = build_pull(settings, bound_url=settings.public_url or DEFAULT_URL)
    model = pull.model

    async def load() -> bool:
        click.echo(
            f"{settings.predictor} is being loaded, then tasks are taken; stop with Ctrl-C.",
            err=True,
        )
        await model.load()
        if model.failure is not None:
            return False
        await _until_usable(pull.deployment.gateway.storage)
        return True

    run_until_stopped(pull.deployment, load, model.until_failed)
    if model.failure is not None:
        raise Failed(one_line(model.failure))
    click.echo(STOPPED, err=True)


async def _until_usable(storage: ObjectStorage) -> None:
    """Wait for the storage; with keys that are wrong, say, every task would be taken and end in error."""
    said_at = -math.inf
    while True:
        try:
            await storage.check()
        except EdgeError as error:
            if anyio.current_time() - said_at >= SAY_EVERY_S:
                said_at = anyio.current_time()
                _log.warning("no task can be taken yet: the storage: %s", error.message)
        else:
            return
        await anyio.sleep(RETRY_S)
