"""What a client asks of the machine that it runs on: the time, chance, and pauses."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import uuid4

from attrs import frozen


@frozen
class Surroundings:
    """
    The machine, as a client sees it; a test hands in another, in which no time passes.

    Attributes:
        monotonic: Returns seconds that only ever grow.
        now: Returns the time, aware; what a ``Retry-After`` date is compared with.
        random: Returns a number from 0 to 1.
        new_key: Makes an idempotency key.
        sleep: Lets seconds pass, for ``Client``.
        async_sleep: Lets seconds pass, for ``AsyncClient``.
        new_event_loop: Makes the loop that an ASGI application runs on, for ``Client.for_app``.
    """

    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    random: Callable[[], float] = random.random
    new_key: Callable[[], str] = lambda: str(uuid4())
    sleep: Callable[[float], None] = time.sleep
    async_sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
