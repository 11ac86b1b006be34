"""
What a segmentation model is to this package: a ``Predictor``.

Only values and a Protocol, so that anything may import it without loading a model.
"""

from collections.abc import Sequence
from typing import Protocol

import attrs


class UnreadableImage(ValueError):  # noqa: N818 - the caller's fault, named as such
    """
    The bytes are not an image that can be segmented.

    They are cut short, in an unknown format or have too many pixels. The message says which, in
    words that may be shown to whoever sent the image.
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
    """

    mask_png: bytes
    labels: tuple[str, ...]
    confidence: float


class Predictor(Protocol):
    """A loaded model that segments images by text prompts."""

    @property
    def model_name(self) -> str:
        """What the model is called, as ``/api/v1/model/info`` reports it."""
        ...

    @property
    def model_version(self) -> str:
        """Changes whenever the same image and prompt may give another mask."""
        ...

    def segment(self, image: bytes, prompts: Sequence[str]) -> list[Segmentation]:
        """
        Segment one image by each of the prompts.

        Blocks for as long as the model computes: call it from a worker thread or process.

        Args:
            image: A whole PNG, JPEG or WebP file.
            prompts: What to pick, one mask each.

        Returns:
            One segmentation per prompt, in their order. A prompt that picks nothing gives an empty
            mask, not an error.

        Raises:
            UnreadableImage: The image cannot be decoded.
        """
        ...
