"""``s3edge demo``."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import click

from s3edge.cli.options import WRONG_USAGE, Failed, settings_of, with_environment
from s3edge.cli.segment import segment_to_files
from s3edge.cli.server import app_of, bind, running_in_thread, url_of
from s3edge.config import build
from s3edge.config.local_auth import LocalAuthenticator
from s3edge.gateway import RandomIds
from s3edge.values import Tier


PHOTOGRAPH = "astronaut.png"
"""Ships with scikit-image; a public-domain photograph by NASA."""

PROMPT = "the orange suit"


@click.command()
@click.argument("image", default="")
@click.argument("prompt", default="")
@with_environment
def demo(environ: Mapping[str, str], image: str, prompt: str) -> None:
    """
    Segment IMAGE by PROMPT on a server that is started for it.

    Without an IMAGE, or with an empty one, it takes a photograph that ships with scikit-image, and the
    prompt "the orange suit"; with an IMAGE and no PROMPT, it picks what stands out.
    """
    # Whatever the address from outside is, the demo talks to a server of its own.
    settings = settings_of(
        {"S3EDGE_LOG": "error", **environ, "S3EDGE_PUBLIC_URL": ""}, embedded=True
    )
    chosen = Path(image).expanduser() if image else _photograph()
    if not chosen.is_file():
        raise Failed(f"there is no file {chosen}", WRONG_USAGE)
    prompt = prompt or ("what stands out" if image else PROMPT)
    with bind("127.0.0.1", 0) as listener:
        url = url_of(listener)
        deployment = build(settings, bound_url=url)
        authenticator = deployment.gateway.authenticator
        if not isinstance(authenticator, LocalAuthenticator):
            raise Failed("the demo signs its own token; leave S3EDGE_AUTH unset")
        token = authenticator.issuer.issue(RandomIds().new(), Tier.PRO)
        click.echo(f"Segmenting {chosen.name} by {prompt!r} at {url}", err=True)
        with running_in_thread(app_of(deployment), listener):
            segment_to_files(
                url,
                token,
                chosen,
                prompt,
                settings.data_dir / "demo" / f"{chosen.stem}.mask.png",
            )


def _photograph() -> Path:
    """Return the photograph's file, without importing the package that it ships with."""
    package = importlib.util.find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise Failed("the demo needs scikit-image; pip install 's3edge[embedded]'")
    path = Path(package.submodule_search_locations[0]) / "data" / PHOTOGRAPH
    if not path.is_file():
        raise Failed(f"this scikit-image has no {PHOTOGRAPH}; name an image of your own")
    return path
