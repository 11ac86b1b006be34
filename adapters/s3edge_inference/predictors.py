"""
What a segmentation model is to this package: a ``Predictor``.

Only values and a Protocol, so that anything may import it without loading a model.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs

from s3edge.values import Json, ModelInfo


class UnreadableImage(ValueError):  # noqa: N818 - the caller's fault, named as such
    """
    The bytes are not an image that can be segmented.

    They are cut short, in an unknown format or have too many pixels. The message says which, in
    words that may be shown to whoever sent the image.
    """


class PredictorUnavailable(RuntimeError):  # noqa: N818 - named for what it is to who started it
    """
    A predictor cannot work here: no weights, no library, no such device.

    The message is one line that says what to do about it; the server ends with it.
    """


@attrs.frozen
class Segmentation:
    """
    What one prompt picked from one image.

    Attributes:
        mask_png: An 8-bit greyscale PNG of the stored image's width and height: 255 where the pixel
            was picked, 0 elsewhere, no other value.
        labels: What was picked, in the prompt's order: what the model calls it. The CPU predictor
            gives the colour names found in the prompt, or ``("foreground",)``.
        confidence: How sure the model is, from 0 to 1. An empty mask has 0.
        metadata: What else it says, as JSON: boxes and scores of what it found, say. It goes into the
            result's metadata, beside what is always there.

    The server holds an answer to this, and to 64 KiB of labels and metadata: what no gateway would
    believe fails that image, and the log says why.
    """

    mask_png: bytes
    labels: tuple[str, ...]
    confidence: float
    metadata: Mapping[str, Json] = attrs.field(factory=dict)


@attrs.frozen
class GpuMemory:
    """
    The memory of the device that a model is on.

    Attributes:
        gpu_name: What the vendor calls the device.
        used_mb: In use, by whomever, in MiB.
        total_mb: What it has, in MiB.
    """

    gpu_name: str
    used_mb: float
    total_mb: float


@attrs.frozen
class PredictorOptions:
    """
    What the settings say to the factory of a predictor.

    Attributes:
        weights: Where the weights are: a folder, or a name on a hub. Empty for the predictor's own.
        device: ``cuda``, ``cuda:1``, ``cpu``, ... Empty for the best that there is.
        dtype: Of the weights: ``float32``, ``bfloat16``, ... Empty for the best on that device.
        vendor: The rest of the environment: settings under vendors' own names; holds secrets.
    """

    weights: str = ""
    device: str = ""
    dtype: str = ""
    vendor: Mapping[str, str] = attrs.field(factory=dict, repr=False)


class Predictor(Protocol):
    """
    A model that segments images by text prompts.

    A predictor is made quickly, of its options, and then is only data that pickles; ``load`` does the
    slow part, once in each process that runs it, before anything but the two names is asked. The
    methods that have a body here are what a predictor gets that inherits from this class.
    """

    @property
    def model_name(self) -> str:
        """What the model is called, as ``/api/v1/model/info`` reports it."""
        ...

    @property
    def model_version(self) -> str:
        """Changes whenever the same image and prompt may give another mask."""
        ...

    @property
    def in_processes(self) -> bool:
        """
        Whether it runs in worker processes, an image in each.

        That is for models on the CPU, which would stop the server's own threads. Otherwise one thread
        of the server loads it and runs batch after batch.
        """
        return False

    def load(self) -> None:
        """
        Load the model; a repeat does nothing.

        Blocks for as long as it takes.

        Raises:
            PredictorUnavailable: It cannot be loaded, or a library is missing; says what to do.
        """

    def info(self) -> ModelInfo:
        """Say which model runs, and where."""
        ...

    def memory(self) -> GpuMemory | None:
        """Return how full the device is; ``None`` without a GPU. Any thread may ask, at any time."""
        return None

    def segment(self, image: bytes, prompts: Sequence[str]) -> list[Segmentation]:
        """
        Segment one image by each of the prompts.

        Blocks for as long as the model computes: call it from a worker thread or process.

        Args:
            image: A whole PNG, JPEG or WebP file; it is decoded once, whatever the prompts.
            prompts: What to pick, one mask each.

        Returns:
            One segmentation per prompt, in their order. A prompt that picks nothing gives an empty
            mask, not an error.

        Raises:
            UnreadableImage: The image cannot be decoded.
        """
        ...

    def segment_batch(
        self, items: Sequence[tuple[bytes, Sequence[str]]]
    ) -> list[list[Segmentation] | UnreadableImage]:
        """
        Segment several images together, each by its own prompts.

        Args:
            items: The images, each with its prompts, as for ``segment``.

        Returns:
            For each image, in their order, what ``segment`` would return, or why it cannot be read: one
            user's broken image is not another's fault.
        """
        answers: list[list[Segmentation] | UnreadableImage] = []
        for image, prompts in items:
            try:
                answers.append(self.segment(image, prompts))
            except UnreadableImage as error:
                answers.append(error)
        return answers


PredictorFactory = Callable[[PredictorOptions], Predictor]
"""An entry point of the group ``s3edge.predictors``; its name is what ``S3EDGE_PREDICTOR`` says."""
