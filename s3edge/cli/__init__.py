"""
The command line.

Results go to standard output, everything else to standard error. The exit status is 0, 1 for a failed
operation, or 2 for wrong usage.
"""

import click

import s3edge
from s3edge.cli.lazy import LazyGroup


@click.group(
    cls=LazyGroup,
    places={
        "dev": "s3edge.cli.serve:dev",
        "serve": "s3edge.cli.serve:serve",
        "worker": "s3edge.cli.worker:worker",
        "inference": "s3edge.cli.inference:inference_group",
        "token": "s3edge.cli.token:token",
        "segment": "s3edge.cli.segment:segment",
        "demo": "s3edge.cli.demo:demo",
        "credits": "s3edge.cli.credits:credits_group",
        "reconcile": "s3edge.cli.credits:reconcile",
        "doctor": "s3edge.cli.doctor:doctor",
        "migrate": "s3edge.cli.migrate:migrate",
        "openapi": "s3edge.cli.openapi:openapi",
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(s3edge.__version__, prog_name="s3edge")
def commands() -> None:
    """One public API in front of a GPU that segments images by a text prompt."""
