"""How the stand-in of a GPU server misbehaves on demand, and what it counts."""

import random
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

import anyio
import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType


Status = Annotated[int, Meta(ge=400, le=599)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Behaviour(Struct):
    """
    What the stand-in does with predictions; as it is made, it serves each as well as it can.

    Attributes:
        latency_s: How long each takes, besides the work.
        fail: The statuses that the next ones get, one each; or the share that gets a bare 503.
        silent: None is answered until this is off again; then those that still wait are.
        garbage: Each is answered with status 200 and something that is not the contract's message.
        model_loaded: Whether there is a model; without one they get 503 ``MODEL_NOT_LOADED``.
        duplicate: Each outcome is written to the database twice, where it is written at all.
        seed: Of the random choices; setting it begins their sequence anew.
    """

    latency_s: Annotated[float, Meta(ge=0)] = 0.0
    fail: list[Status] | Share = msgspec.field(default_factory=list)
    silent: bool = False
    garbage: bool = False
    model_loaded: bool = True
    duplicate: bool = False
    seed: int = 0


class _Change(Struct, forbid_unknown_fields=True):
    """The body of ``POST /_control``: what is left out stays."""

    latency_s: Annotated[float, Meta(ge=0)] | UnsetType = UNSET
    fail: list[Status] | Share | UnsetType = UNSET
    silent: bool | UnsetType = UNSET
    garbage: bool | UnsetType = UNSET
    model_loaded: bool | UnsetType = UNSET
    duplicate: bool | UnsetType = UNSET
    seed: int | UnsetType = UNSET


class Controls:
    """
    The behaviour as it is now, and the counters.

    Attributes:
        behaviour: As it is now.
        predict_calls: How often each task was asked for, with the right key.
        model_runs: How often the model ran for each task.
        in_flight: Predictions that are being worked on.
    """

    def __init__(self) -> None:
        self.behaviour = Behaviour()
        self.predict_calls: Counter[str] = Counter()
        self.model_runs: Counter[str] = Counter()
        self.in_flight = 0
        self._random = random.Random(0)  # noqa: S311 - repeatable on purpose
        self._changed = anyio.Event()

    def change(self, body: bytes) -> None:
        """
        Apply the body of ``POST /_control``.

        Raises:
            msgspec.MsgspecError: It is malformed; nothing was changed.
        """
        change = msgspec.json.decode(body, type=_Change)
        given = {
            name: value
            for name, value in msgspec.structs.asdict(change).items()
            if value is not UNSET
        }
        self.behaviour = msgspec.structs.replace(self.behaviour, **given)
        if "seed" in given:
            self._random.seed(self.behaviour.seed)
        self._changed.set()
        self._changed = anyio.Event()

    def report(self) -> dict[str, Any]:
        """Return the answer of ``GET /_control``."""
        return {
            "behaviour": msgspec.structs.asdict(self.behaviour),
            "predict_calls": dict(self.predict_calls),
            "model_runs": dict(self.model_runs),
            "in_flight": self.in_flight,
        }

    async def wait_while_silent(self) -> None:
        """Return when the stand-in is not, or no longer, silent."""
        while self.behaviour.silent:
            await self._changed.wait()

    def next_failure(self) -> int | None:
        """Return the status that the next prediction must get instead of an answer."""
        fail = self.behaviour.fail
        if isinstance(fail, list):
            return fail.pop(0) if fail else None
        return HTTPStatus.SERVICE_UNAVAILABLE if self._random.random() < fail else None

    def garbage(self, task_id: str) -> bytes:
        """Return a body that is not the contract's message, another one now and then."""
        bodies: Sequence[bytes] = [
            b"<!doctype html><title>Welcome to nginx!</title>",
            f'{{"task_id":"{task_id}","mask_url":"http://127.0.0.1/m'.encode(),
            _answer("00000000-0000-4000-8000-000000000000"),
            _answer(task_id, confidence=7),
            _answer(task_id, inference_time_ms=-1),
            _answer(task_id, mask_url="file:///etc/passwd"),
            _answer(task_id).replace(b"0.5", b"NaN"),
            b"",
        ]
        return self._random.choice(bodies)


def _answer(task_id: str, **changes: Any) -> bytes:
    answer = {
        "task_id": task_id,
        "mask_url": "http://127.0.0.1/mask",
        "labels": [],
        "inference_time_ms": 1,
        "confidence": 0.5,
    }
    return msgspec.json.encode(answer | changes)
