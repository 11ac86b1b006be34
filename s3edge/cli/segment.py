"""``s3edge segment``."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from s3edge.cli.options import Failed, with_environment
from s3edge.cli.serve import DEFAULT_HOST, DEFAULT_PORT
from s3edge.client import Client, ConnectionFailed, Result, S3EdgeError, TaskFailed, WaitTimeout


DEFAULT_URL = f"http://{DEFAULT_HOST}:{DEFAULT_PORT}"

ShowProgress = Callable[[str, float], None]
"""Told the stage and how much of it is done, from 0 to 1."""


@click.command()
@click.argument("image", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("prompt")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the mask goes [default IMAGE's name with .mask.png, here].",
)
@click.option("--url", help=f"The server [S3EDGE_BASE_URL, default {DEFAULT_URL}].")
@click.option("--token", help="The access token [S3EDGE_TOKEN].")
@with_environment
def segment(
    environ: Mapping[str, str],
    image: Path,
    prompt: str,
    out: Path | None,
    url: str | None,
    token: str | None,
) -> None:
    """Segment IMAGE by PROMPT on a server; print where the mask and an overlay were saved."""
    # An option that is given and empty, a variable that is not set most likely, is not the environment's.
    token = environ.get("S3EDGE_TOKEN") if token is None else token
    if not token:
        raise Failed("no access token; give --token or set S3EDGE_TOKEN (s3edge dev prints one)")
    url = (environ.get("S3EDGE_BASE_URL") or DEFAULT_URL) if url is None else url
    segment_to_files(url, token, image, prompt, out or Path(f"{image.stem}.mask.png"))


def segment_to_files(url: str, token: str, image: Path, prompt: str, mask: Path) -> None:
    """
    Segment an image, save the mask and an overlay beside it, and print where they are.

    Raises:
        Failed: Says what went wrong.
    """
    try:
        with Client(base_url=url, token=token) as client, _progress_bar() as show:
            result = _segmented(client, image, prompt, show)
            chosen = result.mask.to_pil()
    except S3EdgeError as error:
        raise Failed(words_on(error, url)) from None
    overlay = mask.with_name(mask.name.removesuffix(".png").removesuffix(".mask") + ".overlay.png")
    try:
        mask.parent.mkdir(parents=True, exist_ok=True)
        result.mask.save(mask)
        result.mask.overlay(image).save(overlay, "PNG")
    except (OSError, S3EdgeError) as error:
        raise Failed(f"the mask could not be saved: {error}") from None
    metadata = result.metadata
    click.echo(
        f"{prompt!r}: {', '.join(map(str, result.labels))};"
        f" confidence {metadata['confidence']:.2f}, {metadata['inference_time_ms']:.0f} ms"
        f" by {metadata.get('model_version', 'an unnamed model')}",
        err=True,
    )
    if chosen.getbbox() is None:
        click.echo("Nothing was found: the mask is empty.", err=True)
    click.echo(mask.absolute())
    click.echo(overlay.absolute())


def _segmented(client: Client, image: Path, prompt: str, show: ShowProgress) -> Result:
    uploaded = client.upload(
        image, on_progress=lambda sent, total: show("uploading", sent / max(1, total))
    )
    show("segmenting", 0.0)
    task = client.segment(uploaded, prompt)
    try:
        result = task.wait()
    except KeyboardInterrupt:
        raise Failed(
            f"interrupted, but task {task.id} was accepted and goes on; to wait for it from Python:"
            f" Client().task({str(task.id)!r}).wait()"
        ) from None
    show("segmenting", 1.0)
    return result


def words_on(error: S3EdgeError, url: str) -> str:
    """Return what went wrong, and what to do about it."""
    match error:
        case ConnectionFailed() if urlsplit(url).netloc not in error.message:
            return (
                f"{error.message} The server at {url} says that its images are there; set its"
                f" S3EDGE_PUBLIC_URL to the address at which it is reached."
            )
        case ConnectionFailed():
            return f"{error.message} Is the server at {url} running? Start one with: s3edge dev"
        case TaskFailed():
            return f"the segmentation failed and was refunded: {error.message}"
        case WaitTimeout():
            return f"{error.message} Check again later."
        case _:
            return str(error)


@contextmanager
def _progress_bar() -> Iterator[ShowProgress]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        bar = bars.add_task("uploading", total=1.0)

        def show(stage: str, done: float) -> None:
            bars.update(bar, description=stage, completed=done)

        yield show
