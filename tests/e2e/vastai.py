"""The files of ``examples/vastai`` with their blanks filled in, and the machine that they describe."""

import io
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import define
from dotenv import dotenv_values

from s3edge.testing.server import InferenceProcess, PullProcess


EXAMPLE = Path(__file__).parents[2] / "examples" / "vastai"

RUN = ["-c", "import os, sys; os.execv(sys.argv[1], sys.argv[1:])", str(EXAMPLE / "run.sh")]
"""What Python runs to become the script."""


@define
class PullingMachine(PullProcess):
    """``run.sh`` beside a ``gpu.env`` that takes tasks."""

    def _program(self) -> Sequence[str]:
        return RUN


@define
class ServingMachine(InferenceProcess):
    """``run.sh`` beside a ``gpu.env`` that serves."""

    def _program(self) -> Sequence[str]:
        return RUN


def workspace(folder: Path, text: str) -> Mapping[str, str]:
    """Make a folder as ``setup.sh`` leaves it, and return what the environment says of it."""
    program = folder / "s3edge-venv" / "bin" / "s3edge"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m s3edge "$@"\n')
    program.chmod(0o755)
    (folder / "gpu.env").write_text(text)
    # The model of the file is SAM 3, whose weights are not for tests; the environment wins over the file.
    return {
        "WORKSPACE": str(folder),
        "PORT": "0",
        "S3EDGE_PREDICTOR": "cpu",
        "S3EDGE_MODEL_WEIGHTS": "",
    }


def filled_in(path: Path, values: Mapping[str, str]) -> str:
    """Return a file's text with every blank replaced; one without a value is a ``KeyError``."""
    text = path.read_text("utf-8")
    return re.sub(
        r"^(\w+)=<.*>$", lambda blank: f"{blank[1]}={values[blank[1]]}", text, flags=re.MULTILINE
    )


def settings_of(text: str) -> Mapping[str, str]:
    """Return what a file's text says."""
    values = dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {name: value or "" for name, value in values.items()}
