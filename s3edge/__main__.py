"""The command line's entry point."""

import sys


def main() -> None:
    """Run ``s3edge``; without the server's packages, say what to install."""
    try:
        from s3edge.cli import commands  # noqa: PLC0415 - so that the hint below can be given
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("s3edge"):
            raise
        sys.exit(f"s3edge: the command line needs {error.name!r}; pip install 's3edge[embedded]'")
    commands()


if __name__ == "__main__":
    main()
