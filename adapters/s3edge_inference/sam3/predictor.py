"""``Sam3Predictor``: SAM 3 behind the ``Predictor`` protocol, and what its settings mean."""

import hashlib
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3edge.plugins import missing
from s3edge.values import ModelInfo
from s3edge_inference.decoding import decode
from s3edge_inference.encoding import mask_png
from s3edge_inference.predictors import (
    GpuMemory,
    Predictor,
    PredictorOptions,
    PredictorUnavailable,
    Segmentation,
    UnreadableImage,
)
from s3edge_inference.sam3.weights import HubWeights, find, tensor_files


if TYPE_CHECKING:
    from s3edge_inference.sam3.model import Embedding, LoadedModel


OLDEST_TRANSFORMERS = (5, 24)
"""Older ones have no ``Sam3Model``, or one that today's weights do not fit."""

DTYPES = ("bfloat16", "float32", "float16")

THRESHOLD = 0.5
"""What an instance scores at least, by default: SAM 3's own."""

IMAGES_AT_ONCE = 4
"""Images that are encoded together; in float32 each takes 0.5 GB of memory meanwhile."""

_LIBRARIES = ("torch", "transformers", "safetensors", "huggingface_hub")

_MIB = 1024 * 1024


class Sam3Predictor(Predictor):
    """
    Segments by what the prompts name: "a yellow school bus", "striped cat".

    The image is encoded once for all its prompts. Masks lie on the stored pixel grid. The same bytes
    and prompt give the same mask on the same device, but for single pixels at edges: how many images
    and prompts are computed together may move the last digits of what a pixel is decided by.

    Pickled, it is its settings; whoever unpickles it loads it anew. ``segment_batch`` may be called from
    any thread, by one at a time.

    Args:
        weights: Where they are.
        options: What the settings say.
        threshold: What an instance must score at least to be in the mask, 0 to 1.
    """

    model_name = "sam3"

    def __init__(
        self, weights: Path | HubWeights, options: PredictorOptions, threshold: float = THRESHOLD
    ) -> None:
        self._weights = weights
        self._options = options
        self._threshold = threshold
        self._loaded: LoadedModel | None = None
        self._version = "sam3"

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the model where it is."""
        return (Sam3Predictor, (self._weights, self._options, self._threshold))

    @property
    def model_version(self) -> str:
        """A digest of the weights and of all else that decides masks; ``sam3`` until it is loaded."""
        return self._version

    def load(self) -> None:
        """
        Bring the weights here if they are on the hub, and load them onto the device.

        Raises:
            PredictorUnavailable: Says in one line what is missing.
        """
        if self._loaded is not None:
            return
        # All that is heavy is imported by what runs the model, and by nothing else.
        from s3edge_inference.sam3.hub import fetch  # noqa: PLC0415
        from s3edge_inference.sam3.model import load  # noqa: PLC0415

        folder = self._weights
        if isinstance(folder, HubWeights):
            folder = fetch(folder, self._options.vendor)
        loaded = load(folder, self._options.device, self._options.dtype)
        self._version = f"sam3-{self._digest(folder, loaded)}"
        self._loaded = loaded

    def info(self) -> ModelInfo:
        """Say which model runs, and where."""
        loaded = self._ready()
        tensors = list(loaded.model.parameters())
        return ModelInfo(
            model_name=self.model_name,
            model_version=self._version,
            parameters=sum(tensor.numel() for tensor in tensors),
            weights_size_gb=round(sum(tensor.nbytes for tensor in tensors) / 1e9, 3),
            device=str(loaded.device),
            dtype=str(loaded.dtype).removeprefix("torch."),
        )

    def memory(self) -> GpuMemory | None:
        """Return how full the GPU is; ``None`` without one, or before the model is loaded."""
        loaded = self._loaded
        if loaded is None or loaded.device.type != "cuda":
            return None
        import torch  # noqa: PLC0415

        free, total = torch.cuda.mem_get_info(loaded.device)
        name = torch.cuda.get_device_name(loaded.device)
        return GpuMemory(name, (total - free) / _MIB, total / _MIB)

    def segment(self, image: bytes, prompts: Sequence[str]) -> list[Segmentation]:
        """
        Segment one image by each of the prompts.

        Args:
            image: A whole PNG, JPEG or WebP file; of an animation the first frame is taken.
            prompts: What to pick: short noun phrases in English. Of more than 32 tokens, about 25
                words, the rest is not read.

        Returns:
            One segmentation per prompt, in their order: all instances in one mask, the prompt as the
            only label, the surest instance's score as the confidence, and in the metadata
            ``instances``, the surest first, each a ``box`` (left, top, right, bottom, in pixels) and a
            ``score``. Where there is nothing, the mask is all zero, without label and of confidence 0.

        Raises:
            UnreadableImage: The image cannot be decoded.
        """
        [answer] = self.segment_batch([(image, prompts)])
        if isinstance(answer, UnreadableImage):
            raise answer
        return answer

    def segment_batch(
        self, items: Sequence[tuple[bytes, Sequence[str]]]
    ) -> list[list[Segmentation] | UnreadableImage]:
        """Segment several images, encoded together; see ``segment`` for what each gives."""
        loaded = self._ready()
        answers: list[list[Segmentation] | UnreadableImage] = [[] for _ in items]
        readable = []
        for index, (image, prompts) in enumerate(items):
            try:
                pixels = decode(image)
            except UnreadableImage as error:
                answers[index] = error
                continue
            if prompts:
                # The pixels themselves are let go: ten images of 50 megapixels would take 1.5 GB.
                readable.append(
                    (index, prompts, pixels.size, loaded.preprocessing.pixel_values(pixels))
                )
        for first in range(0, len(readable), IMAGES_AT_ONCE):
            together = readable[first : first + IMAGES_AT_ONCE]
            embeddings = loaded.embed([pixel_values for *_, pixel_values in together])
            for (index, prompts, size, _), embedding in zip(together, embeddings, strict=True):
                answers[index] = self._segmentations(loaded, embedding, prompts, size)
        return answers

    def _segmentations(
        self,
        loaded: "LoadedModel",
        embedding: "Embedding",
        prompts: Sequence[str],
        size: tuple[int, int],
    ) -> list[Segmentation]:
        from s3edge_inference.sam3.instances import merge  # noqa: PLC0415

        segmentations = []
        for prompt, answer in zip(prompts, loaded.answer(embedding, prompts), strict=True):
            mask, instances = merge(answer, *size, self._threshold)
            segmentations.append(
                Segmentation(
                    mask_png(mask),
                    (prompt,) if instances else (),
                    instances[0].score if instances else 0.0,
                    {"instances": [instance.as_json() for instance in instances]},
                )
            )
        return segmentations

    def _ready(self) -> "LoadedModel":
        if self._loaded is None:
            raise RuntimeError("SAM 3 was asked before it was loaded")
        return self._loaded

    def _digest(self, folder: Path, loaded: "LoadedModel") -> str:
        digest = hashlib.sha256()
        settings = {*folder.glob("*.json"), *folder.glob("*.txt")}
        for path in sorted({*settings, *tensor_files(folder)}):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        deciding = (loaded.dtype, loaded.device.type, self._threshold, version("transformers"))
        digest.update(repr(deciding).encode())
        return digest.hexdigest()[:12]


def from_options(options: PredictorOptions) -> Sam3Predictor:
    """
    Return the predictor of ``S3EDGE_PREDICTOR=sam3``; what can be told without loading is checked.

    Args:
        options: ``vendor`` may hold ``SAM3_THRESHOLD``, and the hub's own settings (see ``hub``).

    Raises:
        PredictorUnavailable: A library or the weights are missing, or a setting is malformed.
    """
    _check_libraries()
    if options.dtype and options.dtype not in DTYPES:
        raise PredictorUnavailable(f"S3EDGE_MODEL_DTYPE: write one of {', '.join(DTYPES)}")
    threshold = _threshold(options.vendor.get("SAM3_THRESHOLD", "").strip())
    return Sam3Predictor(find(options.weights), options, threshold)


def _check_libraries() -> None:
    for name in _LIBRARIES:
        if find_spec(name) is None:
            raise PredictorUnavailable(f"the predictor sam3 needs {missing(name)}")
    try:
        found = version("transformers")
    except PackageNotFoundError:
        found = "of no version"
    numbers = re.match(r"(\d+)\.(\d+)", found)
    if numbers is None or tuple(map(int, numbers.groups())) < OLDEST_TRANSFORMERS:
        oldest = ".".join(map(str, OLDEST_TRANSFORMERS))
        raise PredictorUnavailable(
            f"transformers {found} is too old for SAM 3; pip install 'transformers>={oldest},<6'"
        )


def _threshold(text: str) -> float:
    if not text:
        return THRESHOLD
    if not re.fullmatch(r"0?\.\d{1,6}", text):
        raise PredictorUnavailable("SAM3_THRESHOLD: write a number between 0 and 1, such as 0.5")
    return float(text)
