"""Runs the stand-in: ``python -m s3edge.testing.standins.supabase --database-url ...``."""

import socket
import sys
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from s3edge.testing.standins.supabase.app import create_app
from s3edge.testing.standins.supabase.project import Project
from s3edge.testing.standins.supabase.state import State


HOST = "127.0.0.1"
BACKLOG = 2048


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until a signal to stop."""
    options = _options(arguments)
    listener = socket.create_server((HOST, options.port), backlog=BACKLOG)
    with listener:
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        project = Project.load(options.project) if options.project else Project.create()
        state = State(
            url, project, options.auth_database_url or options.database_url, options.project
        )
        state.save()
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(state, options.database_url),
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=5,
            )
        )
        if options.until_input_ends:
            threading.Thread(target=_stop_at_end_of_input, args=(server,), daemon=True).start()
        print(f"Serving at {url}", file=sys.stderr, flush=True)  # noqa: T201 - its one output
        server.run(sockets=[listener])


def _options(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(
        prog="python -m s3edge.testing.standins.supabase",
        description="Answer as a Supabase project does: JWKS and REST. On this machine only.",
    )
    parser.add_argument("--database-url", required=True, help="the database, as authenticator")
    parser.add_argument("--auth-database-url", help="the database, as supabase_auth_admin")
    parser.add_argument("--port", type=int, default=0, help="0 for a free one")
    parser.add_argument("--project", type=Path, help="a file to keep the keys in")
    parser.add_argument(
        "--until-input-ends",
        action="store_true",
        help="stop when standard input ends, as it does with the process that holds it",
    )
    return parser.parse_args(arguments)


def _stop_at_end_of_input(server: uvicorn.Server) -> None:
    sys.stdin.read()
    server.should_exit = True


if __name__ == "__main__":
    main()
