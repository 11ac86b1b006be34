"""
The command line.

Results go to standard output, everything else to standard error. The exit status is 0, 1 for a failed
operation, or 2 for wrong usage.
"""

import click

import s3edge
from s3edge.cli.credits import credits_group, reconcile
from s3edge.cli.demo import demo
from s3edge.cli.doctor import doctor
from s3edge.cli.inference import inference_group
from s3edge.cli.migrate import migrate
from s3edge.cli.openapi import openapi
from s3edge.cli.pull import work
from s3edge.cli.segment import segment
from s3edge.cli.serve import dev, serve
from s3edge.cli.token import token
from s3edge.cli.worker import worker


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(s3edge.__version__, prog_name="s3edge")
def commands() -> None:
    """One public API in front of a GPU that segments images by a text prompt."""


inference_group.add_command(work)

for command in (
    dev,
    serve,
    worker,
    inference_group,
    token,
    segment,
    demo,
    credits_group,
    reconcile,
    doctor,
    migrate,
    openapi,
):
    commands.add_command(command)
