"""``s3edge inference work``."""

from collections.abc import Mapping

import click

from s3edge.cli.inference import needing_model, one_line, predictor_option
from s3edge.cli.options import Failed, settings_of, with_environment
from s3edge.cli.segment import DEFAULT_URL
from s3edge.cli.worker import STOPPED, check_dispatch, run_until_stopped


@click.command("work")
@predictor_option
@with_environment
def work(environ: Mapping[str, str], predictor: str | None) -> None:
    """Run tasks from the queue with the model that S3EDGE_PREDICTOR names, and listen to nobody."""
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
        return model.failure is None

    run_until_stopped(pull.deployment, load)
    if model.failure is not None:
        raise Failed(one_line(model.failure))
    click.echo(STOPPED, err=True)
