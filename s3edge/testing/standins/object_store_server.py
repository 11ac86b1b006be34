"""
The process behind ``object_store``: moto's S3 on a free port of this machine.

Prints the port on a line of its own, serves until its standard input ends, so that it never outlives
whoever started it.
"""

import io
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server


HOST = "127.0.0.1"

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


def one_at_a_time(app: Wsgi) -> Wsgi:
    """
    Return an application that works on one request at a time, each once its body is there.

    moto looks whether a key is free and then takes it; two threads may both find it free, which no real
    store allows.
    """
    lock = threading.Lock()

    def locked(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        if len(body) < length:
            # The client went away in the middle; a real store drops what it has.
            start_response("400 Bad Request", [("Content-Length", "0")])
            return []
        environ["wsgi.input"] = io.BytesIO(body)
        with lock:
            return list(app(environ, start_response))

    return locked


def main() -> None:
    """Serve until standard input ends."""
    # moto asks nobody, but what it calls looks for these.
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    app = one_at_a_time(DomainDispatcherApplication(create_backend_app))
    server = make_server(HOST, 0, app, threaded=True, request_handler=MotoRequestHandler)
    print(server.server_port, flush=True)  # noqa: T201 - read by whoever started this
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.buffer.read()
    # Requests that still run are nobody's any more.
    os._exit(0)


if __name__ == "__main__":
    main()
