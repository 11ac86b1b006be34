"""``s3edge token``."""

from collections.abc import Mapping
from uuid import UUID

import click

from s3edge.cli.options import Failed, settings_of, with_environment
from s3edge.config.settings import LOCAL_AUTH
from s3edge.gateway import RandomIds, SystemClock
from s3edge.values import Tier
from s3edge_embedded.issuer import DEFAULT_LIFETIME_S, LocalIssuer


MAX_LIFETIME_S = 366 * 24 * 3600


@click.command()
@click.option("--user", required=True, type=click.UUID, help="Who the token belongs to.")
@click.option(
    "--tier",
    default=Tier.FREE.value,
    show_default=True,
    type=click.Choice([tier.value for tier in Tier]),
    help="The user's tier.",
)
@click.option(
    "--lifetime",
    "lifetime_s",
    default=DEFAULT_LIFETIME_S,
    show_default=True,
    type=click.IntRange(1, MAX_LIFETIME_S),
    help="How long the token is valid, in seconds.",
)
@with_environment
def token(environ: Mapping[str, str], user: UUID, tier: str, lifetime_s: int) -> None:
    """Print an access token signed by the local issuer."""
    settings = settings_of(environ)
    if settings.auth != LOCAL_AUTH:
        raise Failed(
            f"S3EDGE_AUTH is {settings.auth}: tokens are signed there, not here;"
            " set S3EDGE_AUTH=local to use the local issuer"
        )
    try:
        issuer = LocalIssuer(settings.data_dir, SystemClock(), RandomIds())
    except (OSError, ValueError) as error:
        raise Failed(str(error)) from None
    click.echo(issuer.issue(user, Tier(tier), lifetime_s))
