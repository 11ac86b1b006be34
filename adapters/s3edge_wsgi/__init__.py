"""
The WSGI door: the same routes behind gunicorn, waitress, mod_wsgi, or within Flask and Django.

``create_app`` makes a WSGI application that runs alone or is mounted under a prefix (``SCRIPT_NAME``).
All work is done on one event loop a process, in a thread of its own, which holds ``gateway.running()``
open: it starts with the first request, in the process that serves it, and ends with ``close()`` or at
exit. The server's threads only carry bytes: a request's body to the loop, a chunk at a time and when it
is asked for; a response from it.

A body that breaks off is an error in the stream, never its end, so nothing is stored. A gateway that
does not open is answered with 503 and tried again. A long poll holds one of the server's threads, so few
are let in (``max_waits``). Servers that replace threads by greenlets (gevent, eventlet) are not
supported: the event loop needs a thread of the system's.
"""

from s3edge_wsgi.app import MAX_WAITS, WsgiApp, create_app


__all__ = ["MAX_WAITS", "WsgiApp", "create_app"]
