"""From a mask to the file that is stored."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


Mask = NDArray[np.bool_]


def mask_png(mask: Mask) -> bytes:
    """Return a mask, ``(height, width)``, as an 8-bit greyscale PNG: 255 where it is set, 0 elsewhere."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
