"""
The doors that end-to-end tests run over, and every test that runs over one door only, with its reason.

A test that takes the fixture ``door``, or one that builds on it (``shared_server``, ``start_door``), runs
over all of them. Any other test must be named below, or it fails.
"""

from collections.abc import Collection, Mapping, Sequence

from attrs import field, frozen

from s3edge.testing.server import ServerProcess
from s3edge.testing.wsgi_server import GunicornProcess, WaitressProcess


@frozen
class Door:
    """
    A way into the gateway, on a real server, with what is that server's own doing.

    Attributes:
        name: Of the server.
        process: What runs it.
        streams_bodies: Whether the server hands a body on as it comes in, so that what is too large is
            refused while it is still sent; otherwise it takes all of it first.
        bounds_trailers: Whether headers behind a chunked body are held to a limit of headers' size;
            otherwise they count as body.
        envelopes_bad_http: Whether even what is no HTTP is answered in the API's envelope; otherwise the
            server has a page of its own.
    """

    name: str
    process: type[ServerProcess]
    streams_bodies: bool = field(default=True, kw_only=True)
    bounds_trailers: bool = field(default=True, kw_only=True)
    envelopes_bad_http: bool = field(default=True, kw_only=True)

    def __str__(self) -> str:
        """Return the name."""
        return self.name


UVICORN = Door("uvicorn", ServerProcess)
"""Starlette on uvicorn: ``s3edge serve``."""

GUNICORN = Door("gunicorn", GunicornProcess, envelopes_bad_http=False)
"""WSGI on gunicorn, with threads."""

WAITRESS = Door(
    "waitress",
    WaitressProcess,
    streams_bodies=False,
    bounds_trailers=False,
    envelopes_bad_http=False,
)
"""WSGI on waitress, which reads a request whole before it calls the application."""

DOORS: Sequence[Door] = (UVICORN, GUNICORN, WAITRESS)

ONE_DOOR: Mapping[str, str] = {
    # Of the process `s3edge serve`.
    "test_overload.py": "admission by the event loop and the protocol limits of `s3edge serve`",
    "test_stop.py": "the signals and the drain of `s3edge serve`",
    "fleet/test_waiting.py": "2,000 long polls at once are what the event loop is for; WSGI lets few in",
    # Of what is behind a door.
    "test_shared_limits.py": "several gateways that share a store; how they are reached is no part of it",
    "fleet/test_chaos.py": "several gateways and workers; likewise",
    "fleet/test_workers.py": "workers have no door",
    "test_storage_adapter.py": "an adapter of somebody else's; likewise",
    "cloud/test_inference_server.py": "the inference server, behind a gateway; likewise",
    "test_inference_process.py": "the inference server, which is no gateway",
    "fleet/test_pull.py": "workers have no door",
    "test_pull_process.py": "likewise",
    "cloud/test_vastai.py": "the files of an example, for `s3edge serve` and the inference server",
    "test_vastai_example.py": "files and scripts of an example, which are read",
    # Of commands and of programs that stand before a server.
    "test_readme.py": "the commands that the README tells a newcomer to type start `s3edge serve`",
    "test_sdk_docs.py": "programs of the documentation; what they send is sent over all doors elsewhere",
    "test_testing_docs.py": "worked examples of tests, in memory; no server takes part",
    "test_segment_folder.py": "a program of its own; what it sends is sent over all doors elsewhere",
    "test_curl_script.py": "a program of its own; likewise",
    "test_dart_client.py": "a program of its own, whose requests are read off its text; likewise",
    "test_client_memory.py": "the memory of the client",
    "test_examples.py": "each host application has the door of its framework",
    "cloud/test_cloud_doctor.py": "`s3edge doctor`, which no server takes part in",
    "cloud/test_cloud_money.py::test_credits_are_granted_from_the_command_line": "no server takes part",
    "cloud/test_cloud_without_service_key.py::test_what_needs_the_key_says_so": "no server takes part",
    # How the parts of a gateway fail is theirs, whoever calls: two of eight, and one of four, over WSGI.
    "cloud/test_cloud_outages.py::test_an_outage_is_said_in_time_charges_nothing_and_ends": "in part",
    "cloud/test_cloud_outages.py::test_without_a_gpu_requests_are_taken": "in part",
    # Of a server's own.
    "test_wsgi.py": "gunicorn's reloads and stops; those of `s3edge serve` are in files of their own",
    # All doors in one test.
    "test_doors_agree.py": "compares the doors with one another",
}
"""
Files, and tests in files, below this folder, that do not run over every door; each with its reason.
"""


def is_decided(test: str, fixtures: Collection[str], chosen_by_hand: bool) -> bool:
    """
    Return whether a test runs over every door, or is known not to.

    Args:
        test: Its file, relative to this folder, and its name: ``test_stop.py::test_a_stop``.
        fixtures: What it takes, and what that takes.
        chosen_by_hand: Whether it has a list of doors of its own.
    """
    is_over_all = "door" in fixtures and not chosen_by_hand
    return is_over_all or bool({test, test.partition("::")[0]} & ONE_DOOR.keys())
