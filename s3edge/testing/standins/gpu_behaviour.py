"""How the stand-in of a GPU server misbehaves on demand, and what it counts."""

import random
from collections import Counter
from collections.abc import Sequence
from enum import Enum, auto
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

    Each share is drawn from a sequence of its own, so that what one is set to changes nothing about
    which predictions another hits.

    Attributes:
        latency_s: How long each takes, besides the work.
        fail: The statuses that the next ones get, one each; or the share that gets a bare 503.
        hang: The share that is not answered while this is above 0; then those that still wait are.
        silent: None is answered until this is off again; then those that still wait are.
        garbage: Each is answered with status 200 and something that is not the contract's message.
        model_loaded: Whether there is a model; without one they get 503 ``MODEL_NOT_LOADED``.
        write: The share whose outcome is written to the database besides being answered, where there
            is a database to write to.
        write_late: The share of those that is written after the answer, not before it.
        duplicate: Each outcome is written to the database twice, where it is written at all.
        seed: Of the random choices; setting it begins their sequences anew.
    """

    latency_s: Annotated[float, Meta(ge=0)] = 0.0
    fail: list[Status] | Share = msgspec.field(default_factory=list)
    hang: Share = 0.0
    silent: bool = False
    garbage: bool = False
    model_loaded: bool = True
    write: Share = 1.0
    write_late: Share = 0.0
    duplicate: bool = False
    seed: int = 0


class _Change(Struct, forbid_unknown_fields=True):
    """The body of ``POST /_control``: what is left out stays."""

    latency_s: Annotated[float, Meta(ge=0)] | UnsetType = UNSET
    fail: list[Status] | Share | UnsetType = UNSET
    hang: Share | UnsetType = UNSET
    silent: bool | UnsetType = UNSET
    garbage: bool | UnsetType = UNSET
    model_loaded: bool | UnsetType = UNSET
    write: Share | UnsetType = UNSET
    write_late: Share | UnsetType = UNSET
    duplicate: bool | UnsetType = UNSET
    seed: int | UnsetType = UNSET


class Writing(Enum):
    """When an outcome is written to the database by the server itself."""

    NEVER = auto()
    BEFORE_ANSWER = auto()
    AFTER_ANSWER = auto()


class Controls:
    """
    The behaviour as it is now, and the counters.

    Attributes:
        behaviour: As it is now.
        predict_calls: How often each task was asked for, with the right key.
        model_runs: How often the model ran for each task.
        in_flight: Predictions that are being worked on.
        failed: Predictions that got a status on demand.
        hung: Predictions that were left without an answer by ``hang``.
        written: Outcomes that the database took from the server itself, early or late.
        written_late: Those among them that came after the answer.
    """

    def __init__(self) -> None:
        self.behaviour = Behaviour()
        self.predict_calls: Counter[str] = Counter()
        self.model_runs: Counter[str] = Counter()
        self.in_flight = 0
        self.failed = 0
        self.hung = 0
        self.written = 0
        self.written_late = 0
        self._chances: dict[str, random.Random] = {}
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
            self._chances.clear()
        self._changed.set()
        self._changed = anyio.Event()

    def report(self) -> dict[str, Any]:
        """Return the answer of ``GET /_control``."""
        return {
            "behaviour": msgspec.structs.asdict(self.behaviour),
            "predict_calls": dict(self.predict_calls),
            "model_runs": dict(self.model_runs),
            "in_flight": self.in_flight,
            "failed": self.failed,
            "hung": self.hung,
            "written": self.written,
            "written_late": self.written_late,
        }

    def next_hangs(self) -> bool:
        """Return whether the next prediction must go without an answer, and count it."""
        hangs = self._happens("hang", self.behaviour.hang)
        self.hung += hangs
        return hangs

    def keeps_waiting(self, *, hangs: bool) -> bool:
        """Return whether a prediction has to wait now; ``hangs`` if it is one that was picked."""
        return self.behaviour.silent or (hangs and self.behaviour.hang > 0)

    async def wait(self, *, hangs: bool) -> None:
        """Return when a prediction need not wait any longer."""
        while self.keeps_waiting(hangs=hangs):
            await self._changed.wait()

    def next_failure(self) -> int | None:
        """Return the status that the next prediction must get instead of an answer, and count it."""
        status = self._next_status()
        self.failed += status is not None
        return status

    def next_writing(self) -> Writing:
        """Return whether and when the next outcome is written by the server itself."""
        is_late = self._happens("write_late", self.behaviour.write_late)
        if not self._happens("write", self.behaviour.write):
            return Writing.NEVER
        return Writing.AFTER_ANSWER if is_late else Writing.BEFORE_ANSWER

    def count_written(self, writing: Writing) -> None:
        """Count an outcome that the database took."""
        self.written += 1
        self.written_late += writing is Writing.AFTER_ANSWER

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
        return self._chance("garbage").choice(bodies)

    def _next_status(self) -> int | None:
        fail = self.behaviour.fail
        if isinstance(fail, list):
            return fail.pop(0) if fail else None
        return HTTPStatus.SERVICE_UNAVAILABLE if self._happens("fail", fail) else None

    def _happens(self, what: str, share: float) -> bool:
        return self._chance(what).random() < share

    def _chance(self, what: str) -> random.Random:
        """Return the sequence of one kind of choice."""
        if what not in self._chances:
            self._chances[what] = random.Random(f"{self.behaviour.seed} {what}")  # noqa: S311 - repeatable on purpose
        return self._chances[what]


def _answer(task_id: str, **changes: Any) -> bytes:
    answer = {
        "task_id": task_id,
        "mask_url": "http://127.0.0.1/mask",
        "labels": [],
        "inference_time_ms": 1,
        "confidence": 0.5,
    }
    return msgspec.json.encode(answer | changes)
