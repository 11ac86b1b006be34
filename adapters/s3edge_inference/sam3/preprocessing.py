"""
From an image to what SAM 3 looks at: a square of normalised floats.

transformers has this as ``Sam3ImageProcessor``, which needs torchvision, of which nothing else here is
needed and which must fit the installed PyTorch to the digit. So the same three steps are taken here,
with the kernel that torchvision's ``resize`` calls: bilinear with antialiasing on bytes, then one
subtraction and one division in float32, of mean and deviation that were scaled to bytes.

Source: transformers 5.24, ``image_processing_backends.TorchvisionBackend.rescale_and_normalize``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from s3edge_inference.predictors import PredictorUnavailable
from s3edge_inference.sam3.weights import processor_config


_BILINEAR = 2  # Pillow's number.
_CHANNELS = 3


@attrs.frozen
class Preprocessing:
    """
    The settings of the image processor that the weights were trained with.

    The defaults are ``Sam3ImageProcessor``'s own, which files of settings may leave out.

    Attributes:
        height: Of the square, in pixels.
        width: The same.
        rescale_factor: What turns a byte into the unit that the next two are in.
        mean: Of each channel.
        std: Of each channel: its standard deviation.
    """

    height: int = 1008
    width: int = 1008
    rescale_factor: float = 1 / 255
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def read(cls, folder: Path) -> "Preprocessing":
        """
        Return the settings that stand beside the weights.

        Raises:
            PredictorUnavailable: They ask for steps that are not taken here.
        """
        config = processor_config(folder)
        steps = ("do_resize", "do_rescale", "do_normalize")
        unknown = [name for name in steps if config.get(name, True) is not True]
        unknown += [name for name in ("do_pad", "do_center_crop") if config.get(name)]
        if config.get("resample", _BILINEAR) != _BILINEAR:
            unknown.append("resample")
        if unknown:
            raise PredictorUnavailable(
                f"the image processor in {folder} asks by {', '.join(unknown)} for something else than"
                " SAM 3's; use the weights of facebook/sam3, or such as were trained from them"
            )
        try:
            return cls._of(config)
        except (KeyError, TypeError, ValueError) as error:
            raise PredictorUnavailable(
                f"the settings of the image processor in {folder} cannot be read; download them again"
            ) from error

    @classmethod
    def _of(cls, config: Mapping[str, Any]) -> "Preprocessing":
        default = cls()
        size = config.get("size", {"height": default.height, "width": default.width})
        mean, std = config.get("image_mean", default.mean), config.get("image_std", default.std)
        return cls(
            height=int(size["height"]),
            width=int(size["width"]),
            rescale_factor=float(config.get("rescale_factor", default.rescale_factor)),
            mean=_three(mean),
            std=_three(std),
        )

    def pixel_values(self, image: Image.Image) -> torch.Tensor:
        """
        Return what the model looks at, on the CPU: ``(3, height, width)``, float32.

        Args:
            image: RGB. Its proportions are not kept: the model was trained on squeezed images.
        """
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0)
        square = interpolate(
            pixels, (self.height, self.width), mode="bilinear", align_corners=False, antialias=True
        )[0]
        scale = 1 / self.rescale_factor
        mean = (torch.tensor(self.mean) * scale).view(_CHANNELS, 1, 1)
        std = (torch.tensor(self.std) * scale).view(_CHANNELS, 1, 1)
        return (square.to(torch.float32) - mean) / std


def _three(values: Sequence[float]) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != _CHANNELS:
        raise ValueError("one number a channel")
    return numbers
