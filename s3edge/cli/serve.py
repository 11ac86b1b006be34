"""``s3edge serve`` and ``s3edge dev``."""

from collections.abc import Mapping
from uuid import UUID

import click

from s3edge.cli.options import settings_of, with_environment
from s3edge.cli.server import app_of, bind, run, run_workers, url_of
from s3edge.config import build
from s3edge.config.local_auth import LocalAuthenticator
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
    help="Port to bind; 0 takes a free one.",
)


@click.command()
@_host
@_port
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="How many processes serve.",
)
@with_environment
def serve(environ: Mapping[str, str], host: str, port: int, workers: int) -> None:
    """Serve, as the environment says."""
    settings = settings_of(environ)
    with bind(host, port) as listener:
        if workers > 1:
            # Built once here too, so that a wrong setting stops the start instead of every worker.
            build(settings, bound_url=url_of(listener))
            _announce(settings.public_url or url_of(listener))
            run_workers(environ, listener, workers)
            return
        deployment = build(settings, bound_url=url_of(listener))
        _announce(settings.public_url or url_of(listener))
        run(app_of(deployment), listener)


@click.command()
@_host
@_port
@with_environment
def dev(environ: Mapping[str, str], host: str, port: int) -> None:
    """Serve with everything embedded; print the address and a token."""
    settings = settings_of(environ, embedded=True)
    with bind(host, port) as listener:
        url = settings.public_url or url_of(listener)
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
        run(app_of(deployment), listener)


def _announce(url: str) -> None:
    click.echo(f"Serving at {url}; stop with Ctrl-C.", err=True)
