"""``s3edge openapi``."""

import click

from s3edge.web.routes import document


@click.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    click.echo(document().decode())
