"""
``CpuPredictor``, which needs no GPU and no weights: colour words, and standing out from the border.

It has no understanding of nouns. "the red car" picks everything red, "the red car on green grass"
everything red or green, and "the car" whatever stands out from the image's border. It is a
stand-in, so that everything around the model (images, queues, money, masks) is real without a GPU.
"""

from collections.abc import Sequence
from importlib.util import find_spec

import attrs

from s3edge.rules.images import MAX_IMAGE_PIXELS
from s3edge.values import ModelInfo
from s3edge_inference.predictors import (
    Predictor,
    PredictorOptions,
    PredictorUnavailable,
    Segmentation,
)


_LIBRARIES = ("PIL", "numpy", "scipy", "skimage")


@attrs.frozen
class CpuPredictor(Predictor):
    """
    Segments by colour words, or else by what stands out from the image's border.

    Deterministic: the same bytes and prompt give the same mask. Holds no state, so threads may
    share it.

    Attributes:
        working_pixels: Pixels of the reduced copy that is analysed; time grows with it.
        superpixels: How many regions the working copy is split into, about; memory grows with its
            square (900 take about 20 MB).
        max_pixels: The most pixels an image may have; checked from the header, before decoding.
        speck_fraction: Specks and holes smaller than this fraction of the image go, 0 to 1.
        model_name: ``s3edge-cpu``.
        model_version: Of the method; changes when masks change.
        in_processes: It would stop the event loop of a process that serves.
    """

    working_pixels: int = 360_000
    superpixels: int = 900
    max_pixels: int = MAX_IMAGE_PIXELS
    speck_fraction: float = 0.0003
    model_name: str = attrs.field(default="s3edge-cpu", init=False)
    model_version: str = attrs.field(default="cpu-superpixels-1", init=False)
    in_processes: bool = attrs.field(default=True, init=False)

    def load(self) -> None:
        """Do nothing: the method has no weights."""

    def info(self) -> ModelInfo:
        """Say which model runs: one without weights."""
        return ModelInfo(
            model_name=self.model_name,
            model_version=self.model_version,
            parameters=0,
            weights_size_gb=0.0,
            device="cpu",
            dtype="float64",
        )

    def segment(self, image: bytes, prompts: Sequence[str]) -> list[Segmentation]:
        """
        Segment one image by each of the prompts.

        Args:
            image: A whole PNG, JPEG or WebP file; of an animation the first frame is taken. EXIF
                orientation is not applied: masks lie on the stored pixel grid.
            prompts: What to pick, one mask each. Colour names decide; several in one prompt are
                united. A prompt without any picks the foreground.

        Returns:
            One segmentation per prompt, in their order. Where nothing fits the mask is all zero and
            the confidence 0.

        Raises:
            UnreadableImage: The image cannot be decoded or has more than ``max_pixels``.
        """
        # In the process that segments, and in no other: these libraries take half a second and 60 MB.
        from s3edge_inference.decoding import decode  # noqa: PLC0415
        from s3edge_inference.superpixels import Method, segmented  # noqa: PLC0415

        method = Method(self.working_pixels, self.superpixels, self.speck_fraction)
        return segmented(decode(image, self.max_pixels), prompts, method)


def cpu_predictor() -> CpuPredictor:
    """
    Return the predictor, if what it needs is installed.

    Raises:
        ModuleNotFoundError: It is not.
    """
    for name in _LIBRARIES:
        if find_spec(name) is None:
            raise ModuleNotFoundError(name=name)
    return CpuPredictor()


def from_options(options: PredictorOptions) -> CpuPredictor:
    """
    Return the predictor of ``S3EDGE_PREDICTOR=cpu``.

    Raises:
        ModuleNotFoundError: A library is not installed.
        PredictorUnavailable: Weights, a device or a type were asked for, and it has none to choose.
    """
    if options.weights or options.device or options.dtype:
        raise PredictorUnavailable(
            "the predictor cpu has no weights, device or dtype to choose; leave S3EDGE_MODEL_WEIGHTS,"
            " S3EDGE_MODEL_DEVICE and S3EDGE_MODEL_DTYPE unset"
        )
    return cpu_predictor()
