"""What holds a call to its limits, whoever answers: time, length, redirects."""

import httpx

from s3edge.client.effects import HttpCall, HttpReply
from s3edge.client.errors import ConnectionFailed, TimedOut
from s3edge.client.surroundings import Surroundings


MAX_REDIRECTS = 5
"""That one download follows; storages use one or none."""


class Redirects:
    """
    The redirects of one call.

    The HTTP library would follow them by itself, and read the body of each, however long.

    Args:
        call: What is sent.
        surroundings: Time.
    """

    def __init__(self, call: HttpCall, surroundings: Surroundings) -> None:
        self._call = call
        self._around = surroundings
        self._left = MAX_REDIRECTS if call.follows_redirects else 0

    def after(self, response: httpx.Response) -> httpx.Request | None:
        """Return what is sent after an answer; ``None`` if it is the last, and to be read."""
        request = response.next_request
        if request is None or not self._call.follows_redirects:
            return None
        if self._left == 0:
            raise ConnectionFailed(f"There were more than {MAX_REDIRECTS} redirects.")
        self._left -= 1
        check_deadline(self._call, self._around)
        request.extensions = {"timeout": timeout_of(self._call, self._around).as_dict()}
        return request


class Received:
    """
    An answer's body as it comes in.

    Args:
        call: What was sent.
        surroundings: Time.
    """

    def __init__(self, call: HttpCall, surroundings: Surroundings) -> None:
        self._call = call
        self._around = surroundings
        self._content = bytearray()

    @staticmethod
    def is_plain(response: httpx.Response) -> bool:
        """
        Return whether a body can be read as it is.

        Compressed ones are not asked for, and not unpacked: a few kilobytes may become gigabytes before
        anybody has counted them.
        """
        return response.headers.get("content-encoding", "").strip().lower() in {"", "identity"}

    def add(self, chunk: bytes) -> None:
        """Take the next piece."""
        check_deadline(self._call, self._around)
        self._content += chunk
        if len(self._content) > self._call.max_bytes:
            raise ConnectionFailed(
                f"The answer is longer than {self._call.max_bytes // 1024**2} MiB."
            )

    def reply(self, response: httpx.Response) -> HttpReply:
        """Return the whole."""
        return HttpReply(response.status_code, dict(response.headers), bytes(self._content))


def timeout_of(call: HttpCall, surroundings: Surroundings) -> httpx.Timeout:
    """Return how long the network may take for each step from now on."""
    left_s = max(0.0, call.deadline - surroundings.monotonic())
    connect_s = min(call.connect_s, left_s)
    return httpx.Timeout(min(call.read_s, left_s), connect=connect_s, pool=connect_s)


def check_deadline(call: HttpCall, surroundings: Surroundings) -> None:
    """
    Return if there is time left.

    Raises:
        TimedOut: There is none.
    """
    if surroundings.monotonic() >= call.deadline:
        raise TimedOut("The call did not end in time.", retryable=True)
