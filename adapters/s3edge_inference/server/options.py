"""What the settings say to an inference server, and the limits that are no setting."""

from attrs import field, frozen


MAX_BODY_BYTES = 64 * 1024
"""Of a request: ten prompts of 500 characters and an address with a signature have less than half."""

MAX_DOWNLOADS = 16
"""How many images are read at once of the storage, and of other hosts; more wait, within the queue."""

IDLE_TIMEOUT_S = 5.0
"""How long an image's host may be silent."""

RECORD_TIMEOUT_S = 3.0
"""How long an answer waits for the database: the gateway records it too."""

RECORD_HANGS_S = 1.0
"""
After how long a refusal of the database means that it hangs: its adapter gives up by itself, after about
as long as an answer waits, and is not interrupted before.
"""

RECORD_PAUSE_S = 5.0
"""How long no answer waits for a database that has let one wait in vain."""

BATCH_TIMEOUT_S = 600.0
"""How long a batch may run: far above what the slowest model takes for ten prompts on every image."""

REMEMBERED_ANSWERS = 4096
"""Tasks whose answers are kept for repeats; older ones are run again, to the same mask."""

HEALTH_TIMEOUT_S = 1.0
"""How long the GPU may take to say how full it is: within the time that a gateway's check has."""

MAX_RETRY_AFTER_S = 60

NOT_LOADED_RETRY_AFTER_S = 5


@frozen
class ServerOptions:
    """
    What an inference server may do, and how much at once.

    Attributes:
        key: What ``X-API-Key`` must hold; empty where nothing listens.
        image_hosts: Hosts besides the storage whose images may be fetched, ``name`` or ``name:port``.
        private_image_hosts: Likewise, and their addresses need not be public.
        image_timeout_s: How long reading an image may take.
        batch_size: How many images go through the model together, at the most.
        batch_wait_s: How long the first of them waits for others.
        batch_timeout_s: When a batch that has not ended is taken for one that never will.
        queue: How many tasks may be under way; one more is refused.
        grace_s: How long tasks may take to end on a stop.
    """

    key: str = field(repr=False)
    image_hosts: frozenset[str] = frozenset()
    private_image_hosts: frozenset[str] = frozenset()
    image_timeout_s: float = 20.0
    batch_size: int = 8
    batch_wait_s: float = 0.01
    batch_timeout_s: float = BATCH_TIMEOUT_S
    queue: int = 128
    grace_s: float = 10.0
