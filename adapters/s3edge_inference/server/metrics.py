"""
What Prometheus is told of an inference server.

The numbers are the process's own, in a registry of its own, so that several servers in one process (in
tests, say) do not share them.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from s3edge_inference.predictors import GpuMemory


Stage = Literal["download", "check", "wait", "predict", "upload", "record"]

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)

_BYTES_PER_MIB = 1024 * 1024


class Metrics:
    """The numbers of one server; what each means is in its text."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._under_way = self._gauge("tasks", "Tasks under way, from their request to their end.")
        self._queue = self._gauge("queue_depth", "Images that wait for the model.")
        self._loaded = self._gauge("model_loaded", "1 once the model is loaded.")
        self._used = self._gauge("gpu_memory_used_bytes", "In use on the model's GPU.")
        self._total = self._gauge("gpu_memory_total_bytes", "Of the model's GPU.")
        self._batches = Histogram(
            "s3edge_inference_batch_size",
            "Images that went through the model together.",
            registry=self._registry,
            buckets=_SIZES,
        )
        self._stages = Histogram(
            "s3edge_inference_stage_seconds",
            "Time by stage: of a task, and for predict of a batch.",
            ["stage"],
            registry=self._registry,
            buckets=_SECONDS,
        )
        self._answers = Counter(
            "s3edge_inference_answers",
            "Answers to predictions by their code; OK, or the error's.",
            ["code"],
            registry=self._registry,
        )
        self._unrecorded = Counter(
            "s3edge_inference_unrecorded",
            "Writes that the database did not take; the gateway records outcomes too.",
            registry=self._registry,
        )

    def observe(self, *, tasks: Callable[[], int], queue: Callable[[], int]) -> None:
        """Have the numbers of what is there read when they are asked for."""
        self._under_way.set_function(tasks)
        self._queue.set_function(queue)

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Count the time in here to a stage, however it ends."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.took(stage, time.monotonic() - started)

    def took(self, stage: Stage, seconds: float) -> None:
        """Count a time to a stage."""
        self._stages.labels(stage).observe(seconds)

    def batch(self, size: int) -> None:
        """Count a batch."""
        self._batches.observe(size)

    def answered(self, code: str) -> None:
        """Count an answer."""
        self._answers.labels(code).inc()

    def unrecorded(self) -> None:
        """Count a write that the database did not take."""
        self._unrecorded.inc()

    def text(self, *, is_loaded: bool, memory: GpuMemory | None) -> bytes:
        """Return everything, in Prometheus' text format."""
        self._loaded.set(is_loaded)
        self._used.set(0 if memory is None else memory.used_mb * _BYTES_PER_MIB)
        self._total.set(0 if memory is None else memory.total_mb * _BYTES_PER_MIB)
        return generate_latest(self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"s3edge_inference_{name}", text, registry=self._registry)
