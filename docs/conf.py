"""How Sphinx builds the documentation: ``make docs``."""

import re
from collections.abc import Iterable
from typing import Any

import s3edge


project = "s3edge"
version = release = s3edge.__version__
copyright = "the s3edge authors"  # noqa: A001 - Sphinx's name

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"s3edge {version}"

# Headings that other pages may link to, as in operate.md#logs.
myst_heading_anchors = 3

autodoc_member_order = "bysource"
# Fields are described once, in the class's own list of attributes, and typed in its signature.
autodoc_default_options = {"undoc-members": False}
napoleon_attr_annotations = False
napoleon_use_ivar = True

LISTS = ("Callers guarantee", "Implementations must")
napoleon_custom_sections = list(LISTS)

# The build uses no network, so names outside the documented modules have no page to link to.
nitpick_ignore_regex = [
    # The standard library's.
    (
        r"py:.*",
        r"(asyncio|collections(\.abc)?|contextlib|datetime|enum|os|pathlib|subprocess|typing|uuid)\..*",
    ),
    # Other packages', and attrs' marker for a default that is made anew for each value.
    (r"py:.*", r"(anyio|attr|httpx|hypothesis|np|numpy|PIL|psycopg)\..*"),
    # Of the SDK, what users are handed and do not make themselves; editors show its docstrings.
    (r"py:.*", r"(s3edge\.client\..*|Image|NDArray|TaskHandle)"),
    # Its exceptions, which one table in reference/sdk.md lists.
    (r"py:exc", r"[A-Z]\w+"),
    # What a test is handed, and does not build itself: the source has the docstrings.
    (r"py:.*", r"s3edge\.(gateway|memory|testing\.signing_in|web)\..*"),
]


def list_sentences(lines: Iterable[str]) -> list[str]:
    """Return a docstring in which each sentence of the sections in ``LISTS`` is an item of a list."""
    listed: list[str] = []
    in_section = begins = False
    for line in lines:
        if line.strip() and not line.startswith(" "):
            in_section = begins = line.rstrip(":") in LISTS
            listed.append(line)
        elif in_section and line.strip():
            listed.append(re.sub(r"^ {4}", "    * " if begins else "      ", line))
            begins = line.endswith(".")
        else:
            listed.append(line)
    return listed


def edit_docstring(*event: Any) -> None:
    """Write the promises as lists; Sphinx hands the lines over last."""
    event[-1][:] = list_sentences(event[-1])


def edit_signature(*event: Any) -> tuple[str, None] | None:
    """Leave out the signature of a Protocol, which nobody calls; Sphinx hands the object over fourth."""
    return ("", None) if getattr(event[3], "_is_protocol", False) else None


def setup(app: Any) -> None:
    """Connect the edits: that of docstrings before napoleon's, whose priority is 500."""
    app.connect("autodoc-process-docstring", edit_docstring, priority=100)
    app.connect("autodoc-process-signature", edit_signature)
