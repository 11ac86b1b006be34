"""``s3edge serve`` and ``s3edge dev``."""

from collections.abc import Mapping
from functools import partial
from uuid import UUID

import anyio
import click

from s3edge.cli.open_files import allow_open_files
from s3edge.cli.options import WRONG_USAGE, Failed, settings_of, with_environment
from s3edge.cli.server import bind, run, run_workers, url_of
from s3edge.cli.stopping import exit_well_on_signals
from s3edge.config import Settings, build, check_opens
from s3edge.config.local_auth import LocalAuthenticator
from s3edge.plugins import scheme_of
from s3edge.values import Tier


DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8787

DEVELOPER = UUID("00000000-0000-4000-8000-000000000001")
"""Who the token of ``s3edge dev`` belongs to, so that results stay from one start to the next."""

_host = click.option("--host", default=DEFAULT_HOST, show_default=True, help="Address to bind.")
_port = click.option(
    "--port",
    default=DEFAULT_PORT,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to bind; 0 picks a free one.",
)


@click.command()
@_host
@_port
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="How many processes to run.",
)
@with_environment
def serve(environ: Mapping[str, str], host: str, port: int, workers: int) -> None:
    """Serve, configured by the environment."""
    settings = settings_of(environ)
    allow_open_files()
    # Whoever reads that it serves may ask it to stop.
    exit_well_on_signals()
    with bind(host, port) as listener:
        anyio.run(partial(check_opens, settings, bound_url=url_of(listener)))
        if workers > 1:
            _check_shareable(settings)
            _announce(settings, url_of(listener))
            run_workers(environ, settings, listener, workers)
            return
        deployment = build(settings, bound_url=url_of(listener))
        _announce(settings, url_of(listener))
        run(deployment, listener)


@click.command()
@_host
@_port
@with_environment
def dev(environ: Mapping[str, str], host: str, port: int) -> None:
    """Serve with everything embedded; print the address and a token."""
    settings = settings_of(environ, embedded=True)
    allow_open_files()
    exit_well_on_signals()
    with bind(host, port) as listener:
        url = url_of(listener)
        anyio.run(partial(check_opens, settings, bound_url=url))
        deployment = build(settings, bound_url=url)
        click.echo(f"export S3EDGE_BASE_URL={url}")
        authenticator = deployment.gateway.authenticator
        if isinstance(authenticator, LocalAuthenticator):
            click.echo(f"export S3EDGE_TOKEN={authenticator.issuer.issue(DEVELOPER, Tier.PRO)}")
        click.echo(f"Serving at {url}, data in {settings.data_dir}; stop with Ctrl-C.", err=True)
        click.echo(
            "Paste the two lines above into another shell, then: s3edge segment IMAGE PROMPT",
            err=True,
        )
        run(deployment, listener)


def _check_shareable(settings: Settings) -> None:
    """Refuse several processes over what only one can see."""
    for name, value in (
        ("S3EDGE_DATABASE", settings.database),
        ("S3EDGE_STORAGE", settings.storage),
    ):
        if scheme_of(value) == "memory":
            raise Failed(
                f"{name}: memory: is separate in each process; serve with --workers 1", WRONG_USAGE
            )
    if scheme_of(settings.rate_limit_store) == "memory" and settings.rate_limits is not None:
        click.echo(
            "Each worker counts requests by itself, so the limits are higher by as many times. Set"
            " S3EDGE_RATE_LIMIT_STORE=redis://host:6379/0 to have them count together.",
            err=True,
        )


def _announce(settings: Settings, url: str) -> None:
    click.echo(f"Serving at {url}; stop with Ctrl-C.", err=True)
    if settings.public_url is not None:
        click.echo(f"Reached from outside as {settings.public_url}.", err=True)
