"""
What runs tasks, whichever way they come: asked for by requests, or taken from a queue.

It is the parts of this folder put together: where images come from, the queue in front of the model, the
model itself, and each task's way through them.
"""

import logging

import anyio

from s3edge.errors import EdgeError
from s3edge.ports import Database, ObjectStorage
from s3edge_inference.predictors import Predictor, PredictorUnavailable
from s3edge_inference.server.batching import Batcher
from s3edge_inference.server.images import Images
from s3edge_inference.server.metrics import Metrics
from s3edge_inference.server.model import Model
from s3edge_inference.server.options import ServerOptions
from s3edge_inference.server.records import Records
from s3edge_inference.server.tasks import Tasks


BATCHES_AT_ONCE = 2
"""Of one lane of the model, when it is full: one that runs, and the next, whose images are being read."""

_log = logging.getLogger(__name__)


class Engine:
    """
    A predictor with all that is around it.

    Args:
        predictor: The model.
        storage: Where uploads are read and masks are kept.
        database: Where it writes what becomes of tasks by itself, if anywhere.
        options: The limits.

    Attributes:
        images: Reads them; opened by whoever runs this.
        model: Runs the predictor.
        tasks: All that are under way.
        metrics: What there is to tell of it.
        capacity: How many tasks keep the model busy; of more, the others would only wait.
        failure: Why the model could not be loaded, or is lost, in one line; else ``None``.
        failed: Set when there is a failure.
    """

    def __init__(
        self,
        predictor: Predictor,
        storage: ObjectStorage,
        database: Database | None,
        options: ServerOptions,
    ) -> None:
        self.failure: str | None = None
        self.failed = anyio.Event()
        self._batch_timeout_s = options.batch_timeout_s
        self.metrics = metrics = Metrics()
        self.model = Model(predictor, timeout_s=options.batch_timeout_s)
        self.images = Images(storage, options, metrics)
        self._batcher = batcher = Batcher(
            self.model, size=options.batch_size, wait_s=options.batch_wait_s, metrics=metrics
        )
        self.tasks = tasks = Tasks(
            images=self.images,
            model=self.model,
            batcher=batcher,
            storage=storage,
            records=Records(database, metrics),
            metrics=metrics,
            most=options.queue,
        )
        fills = BATCHES_AT_ONCE * self.model.lanes * self.model.batch_size(options.batch_size)
        self.capacity = min(fills, options.queue)
        metrics.observe(tasks=lambda: tasks.under_way, queue=lambda: batcher.depth)

    async def load(self) -> None:
        """Load the model; if that cannot be, ``failure`` says why."""
        try:
            await self.model.load()
        except PredictorUnavailable as error:
            self.failure = str(error)
        except EdgeError as error:
            self.failure = error.message
        except Exception as error:  # noqa: BLE001 - the process ends, and the log has the trace
            _log.exception("the model could not be loaded")
            self.failure = f"the model could not be loaded ({type(error).__name__}); see the log"
        else:
            info = self.model.info
            _log.info("loaded %s %s on %s", info.model_name, info.model_version, info.device)
            return
        self.failed.set()

    async def serve(self) -> None:
        """Run what is asked for, until cancelled, or until the model hangs; then ``failure`` says so."""
        await self._batcher.serve()
        self.fail(
            f"the model has not ended a batch in {self._batch_timeout_s:g} s, so the GPU or its driver"
            " hangs; start again, elsewhere if it hangs again"
        )

    def fail(self, reason: str) -> None:
        """Say why nothing can be run any more, in one line, unless that was said before."""
        if self.failure is None:
            self.failure = reason
            _log.error("%s", reason)
            self.failed.set()
