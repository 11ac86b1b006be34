"""``s3edge openapi``."""

from collections.abc import Mapping

import click

from s3edge.cli.options import with_environment
from s3edge.web.routes import document


@click.command()
@with_environment
def openapi(environ: Mapping[str, str]) -> None:  # noqa: ARG001 - the document is the same everywhere
    """Print the OpenAPI document."""
    click.echo(document().decode())
