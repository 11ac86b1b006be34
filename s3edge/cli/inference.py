"""``s3edge inference``."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click
import uvicorn

from s3edge.cli.lazy import LazyGroup
from s3edge.cli.open_files import allow_open_files
from s3edge.cli.options import Failed, settings_of, with_environment
from s3edge.cli.server import COULD_NOT_START, bind, server_of, stopping, url_of
from s3edge.cli.stopping import exit_well_on_signals
from s3edge.plugins import is_of_an_extra, missing
from s3edge_inference.predictors import PredictorUnavailable


DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000

LAST_ANSWERS_S = 5
"""How long the answers may take to go out that say, behind the grace, that a task did not end."""

MAX_LINE = 500
"""Characters of a reason for not starting; libraries may have more to say than a line."""


@click.group("inference", cls=LazyGroup, places={"work": "s3edge.cli.pull:work"})
def inference_group() -> None:
    """Serve the model, on a machine with a GPU."""


predictor_option = click.option(
    "--predictor",
    help="The predictor: cpu, or another that is installed [S3EDGE_PREDICTOR, default cpu].",
)


@inference_group.command("serve")
@predictor_option
@click.option("--host", default=DEFAULT_HOST, show_default=True, help="Address to bind.")
@click.option(
    "--port",
    default=DEFAULT_PORT,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to bind; 0 picks a free one.",
)
@with_environment
def serve_inference(
    environ: Mapping[str, str], predictor: str | None, host: str, port: int
) -> None:
    """Answer the gateway's prediction requests with the model that S3EDGE_PREDICTOR names."""
    if predictor is not None:
        environ = {**environ, "S3EDGE_PREDICTOR": predictor}
    settings = settings_of(environ)
    with needing_model():
        # Gateways without a model of their own have not all that it needs.
        from s3edge.config.inference import (  # noqa: PLC0415
            build_inference,
            writes_outcomes,
        )
    allow_open_files()
    exit_well_on_signals()
    running: list[uvicorn.Server] = []

    def give_up() -> None:
        running[0].should_exit = True

    with bind(host, port) as listener:
        with needing_model():
            inference = build_inference(settings, bound_url=url_of(listener), give_up=give_up)
        server = server_of(
            stopping(inference.app(), inference.stop_taking),
            listener,
            settings.client_timeout_s,
            math.ceil(settings.grace_s) + LAST_ANSWERS_S,
        )
        running.append(server)
        wrote = "writes outcomes" if writes_outcomes(settings) else "leaves outcomes to the gateway"
        click.echo(
            f"Serving at {url_of(listener)}; {settings.predictor} is being loaded; this server {wrote};"
            " stop with Ctrl-C.",
            err=True,
        )
        server.run([listener])
    if inference.failure is not None:
        raise Failed(one_line(inference.failure))
    if not server.started:
        raise Failed(COULD_NOT_START)


@contextmanager
def needing_model() -> Iterator[None]:
    """
    Say in one line what a model lacks to work here.

    Raises:
        Failed: A library is not installed, or the predictor cannot work.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if not is_of_an_extra(error):
            raise
        message = f"the inference server needs {missing(error.name)}"
        raise Failed(message) from None
    except PredictorUnavailable as error:
        raise Failed(one_line(str(error))) from None


def one_line(reason: str) -> str:
    """Return a reason for not starting as one line that a terminal can show."""
    return " ".join(reason.split())[:MAX_LINE]
