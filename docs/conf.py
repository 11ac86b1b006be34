"""How Sphinx builds the documentation: ``make docs``."""

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
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
# Fields are described once, in the class's own list of attributes.
autodoc_default_options = {"undoc-members": False}

napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_param = True
napoleon_custom_sections = ["Callers guarantee", "Implementations must"]

# The build uses no network, so names outside the documented modules have no page to link to.
nitpick_ignore_regex = [
    # The standard library's.
    (r"py:.*", r"(collections\.abc|contextlib|datetime|enum|pathlib|typing|uuid)\..*"),
    # The same, as annotations spell them.
    (
        r"py:.*",
        r"(Any|AsyncIterable|AsyncIterator|Mapping|Path|Protocol|Sequence|StrEnum|UUID|datetime)",
    ),
    # Other packages', and attrs' marker for a default that is made anew for each value.
    (r"py:.*", r"(attr|hypothesis).*"),
    # What a test is handed, and does not build itself: the source has the docstrings.
    (r"py:.*", r"s3edge\.(gateway|memory|web)\..*"),
]
