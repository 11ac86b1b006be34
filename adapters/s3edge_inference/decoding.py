"""From a file that somebody sent to pixels, within limits."""

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from s3edge.rules.images import MAX_IMAGE_PIXELS
from s3edge_inference.predictors import UnreadableImage


MAX_SIDE = 1_000_000
"""Pixels: a strip of 2 by 25 million has few pixels, and no shape that fits into memory."""

_FORMATS = ("PNG", "JPEG", "WEBP")


def decode(image: bytes, max_pixels: int = MAX_IMAGE_PIXELS) -> Image.Image:
    """
    Return the first frame as 8-bit RGB, on white where it is transparent.

    Nothing is decoded before the header was found to be within the limits. EXIF orientation is not
    applied: masks lie on the stored pixel grid.

    Args:
        image: A whole PNG, JPEG or WebP file.
        max_pixels: The most that it may have.

    Raises:
        UnreadableImage: It is something else, is damaged, or has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            # Pillow's own limit is another one; ours is checked below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(image), formats=_FORMATS) as opened:
                _check_pixels(opened, max_pixels)
                opened.load()
                return _as_rgb(opened)
    except (UnreadableImage, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(max_pixels) from error
    except UnidentifiedImageError as error:
        raise UnreadableImage("The file is not a PNG, JPEG or WebP image.") from error
    except Exception as error:
        # On hostile files Pillow's decoders raise OSError, SyntaxError, struct.error and more.
        raise UnreadableImage("The image is damaged or incomplete.") from error


def _check_pixels(opened: Image.Image, max_pixels: int) -> None:
    """Refuse what its header says is too large; nothing has been decoded yet."""
    if opened.width * opened.height > max_pixels:
        raise _too_many_pixels(max_pixels)
    if max(opened.size) > MAX_SIDE:
        raise UnreadableImage(
            f"The image is too long; at most {MAX_SIDE:,} pixels a side are accepted."
        )


def _too_many_pixels(max_pixels: int) -> UnreadableImage:
    return UnreadableImage(
        f"The image has too many pixels; at most {max_pixels / 1e6:g} megapixels are accepted."
    )


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit greyscale; Pillow's own conversion clips at 255 in place of scaling.
        sixteen_bit = np.asarray(image).astype(np.int64)
        return Image.fromarray((sixteen_bit >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        white = Image.new("RGBA", pixels.size, "white")
        return Image.alpha_composite(white, pixels).convert("RGB")
    return image.convert("RGB")
