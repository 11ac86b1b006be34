"""
From what SAM 3 says to one prompt to one mask, and a list of what is in it.

Source: transformers 5.24, ``Sam3ImageProcessor.post_process_instance_segmentation``: the same
thresholds and the same interpolation, but always in float32, and with one instance at the stored size
in memory at a time, where there may be 200 instances and 50 megapixels.
"""

import attrs
import numpy as np
import torch
from torch.nn.functional import interpolate

from s3edge.values import Json
from s3edge_inference.encoding import Mask
from s3edge_inference.sam3.model import RawAnswer


MASK_THRESHOLD = 0.5
"""From where on a pixel belongs to an instance: SAM 3's own."""

_SCORE_DIGITS = 4
_PIXEL_DIGITS = 1


@attrs.frozen
class Instance:
    """
    One thing that a prompt names.

    Attributes:
        box: Left, top, right and bottom, in pixels of the stored image, within it.
        score: How sure the model is, 0 to 1.
    """

    box: tuple[float, float, float, float]
    score: float

    def as_json(self) -> Json:
        """Return what is said of it in a result's metadata."""
        return {"box": list(self.box), "score": self.score}


def merge(
    answer: RawAnswer, width: int, height: int, threshold: float
) -> tuple[Mask, list[Instance]]:
    """
    Unite the masks of all instances.

    Args:
        answer: What the model says to one prompt.
        width: Of the stored image, in pixels.
        height: The same.
        threshold: What an instance must score at least, 0 to 1.

    Returns:
        The pixels of any instance, ``(height, width)``, and the instances, the surest first. One that
        has no pixel is left out.
    """
    with torch.inference_mode():
        order = answer.scores.argsort(descending=True, stable=True)
        merged = torch.zeros((height, width), dtype=torch.bool, device=answer.masks.device)
        instances = []
        for query in order[answer.scores[order] > threshold].tolist():
            mask = _at_stored_size(answer.masks[query], width, height)
            if not mask.any():
                continue
            merged |= mask
            instances.append(_instance(answer, query, width, height))
        return np.asarray(merged.cpu().numpy(), np.bool_), instances


def _at_stored_size(mask: torch.Tensor, width: int, height: int) -> torch.Tensor:
    whole = interpolate(mask[None, None], (height, width), mode="bilinear", align_corners=False)
    return whole[0, 0] > MASK_THRESHOLD


def _instance(answer: RawAnswer, query: int, width: int, height: int) -> Instance:
    left, top, right, bottom = (
        round(min(max(edge * side, 0.0), float(side)), _PIXEL_DIGITS)
        for edge, side in zip(
            answer.boxes[query].tolist(), (width, height, width, height), strict=True
        )
    )
    score = round(float(answer.scores[query]), _SCORE_DIGITS)
    return Instance((left, top, right, bottom), score)
