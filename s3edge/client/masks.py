"""
From a mask's PNG to pictures, arrays and annotations.

Needs Pillow for pictures; the extra ``masks`` brings numpy and scikit-image for the rest. All are
imported when they are used, so that a client without them can still save a mask.
"""

# Pillow, numpy and scikit-image are imported where they are used: see above.
# ruff: noqa: PLC0415

import importlib
import io
import os
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, cast

from s3edge.client.errors import ConfigurationError, InvalidRequest
from s3edge.errors import Detail


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


Picture: TypeAlias = "str | os.PathLike[str] | bytes | Image"
"""An image to lay a mask over: a path, its bytes, or Pillow's."""

TINT = (255, 0, 102)
OUTLINE = (255, 255, 255)
OPACITY = 0.55
OUTSIDE_DIMMED = 0.55

THRESHOLD = 127
"""Brighter is inside."""

CLOSED_AT = 4
"""Corners of the smallest ring: a triangle, whose first is repeated as its last."""


class CocoRle(TypedDict):
    """
    COCO's uncompressed run-length encoding.

    Attributes:
        size: Height and width, in pixels.
        counts: Lengths of runs outside and inside by turns, down the columns, beginning outside.
    """

    size: list[int]
    counts: list[int]


def to_pil(png: bytes) -> "Image":
    """Return a mask as an image of mode ``L``: 255 inside, 0 outside."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as opened:
        return opened.convert("L")


def to_numpy(png: bytes) -> "NDArray[np.bool_]":
    """Return a mask as an array of height by width: ``True`` inside."""
    return cast("NDArray[np.bool_]", _numpy().asarray(to_pil(png)) > THRESHOLD)


def overlay(png: bytes, picture: Picture) -> "Image":
    """
    Return an image whose masked part is tinted and outlined, and whose rest is dimmed.

    Raises:
        InvalidRequest: The image cannot be read.
    """
    from PIL import Image, ImageChops, ImageFilter

    base = _opened(picture)
    chosen = to_pil(png)
    if chosen.size != base.size:
        chosen = chosen.resize(base.size, Image.Resampling.NEAREST)
    tinted = Image.blend(base, Image.new("RGB", base.size, TINT), OPACITY)
    dimmed = Image.blend(base, Image.new("RGB", base.size), 1 - OUTSIDE_DIMMED)
    # An outline, because a tint hardly shows on things that have its colour.
    outline = ImageChops.subtract(chosen.filter(ImageFilter.MaxFilter(5)), chosen)
    shown = Image.composite(tinted, dimmed, chosen)
    shown.paste(OUTLINE, mask=outline)
    return shown


def to_coco_rle(png: bytes) -> CocoRle:
    """Return a mask in COCO's uncompressed run-length encoding, exact to the pixel."""
    numpy = _numpy()
    inside = to_numpy(png)
    flat = inside.ravel(order="F")
    changes = numpy.flatnonzero(flat[1:] != flat[:-1]) + 1
    borders = numpy.concatenate(([0], changes, [flat.size]))
    counts = numpy.diff(borders).tolist()
    if flat[0]:
        counts.insert(0, 0)
    return {"size": list(inside.shape), "counts": counts}


def to_polygons(png: bytes, tolerance: float = 1.0) -> list[list[float]]:
    """
    Return a mask's outlines as COCO writes them: ``[x, y, x, y, ...]`` for each part, in pixels.

    Polygons of COCO know no holes, so those are filled; ``to_coco_rle`` keeps them.

    Args:
        png: The mask.
        tolerance: How far an outline may lie beside the exact one, in pixels.
    """
    numpy, measure = _numpy(), _imported("skimage.measure")
    # A margin, so that what touches the edge has a closed outline.
    padded = numpy.pad(to_numpy(png), 1).astype(float)
    polygons: list[list[float]] = []
    for ring in measure.find_contours(padded, 0.5):
        corners = measure.approximate_polygon(ring, tolerance)
        x, y = corners[:, 1] - 1, corners[:, 0] - 1
        # scikit-image walks around what is higher one way, and around holes the other.
        area = float(numpy.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))
        if len(corners) >= CLOSED_AT and area > 0:
            polygons.append(numpy.column_stack((x, y))[:-1].ravel().tolist())
    return polygons


def _opened(picture: Picture) -> "Image":
    from PIL import Image, UnidentifiedImageError

    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if not _is_source(picture):
        raise _invalid(
            f"{type(picture).__name__} is no picture; give a path, bytes, or an image of Pillow's"
        )
    name = "the image" if isinstance(picture, bytes) else os.fspath(picture)
    source = io.BytesIO(picture) if isinstance(picture, bytes) else picture
    try:
        with Image.open(source) as opened:
            return opened.convert("RGB")
    except UnidentifiedImageError:
        raise _invalid(f"{name} is not an image") from None
    # Pillow says so of files that are cut or damaged, and of those that are all too large.
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _invalid(f"{name} cannot be read: {reason}") from error


def _is_source(given: object) -> bool:
    """Return whether a picture can be read from what was given, which types alone do not say."""
    return isinstance(given, str | os.PathLike | bytes)


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, details=[Detail("image", message)])


def _numpy() -> Any:
    return _imported("numpy")


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigurationError(
            "This needs numpy and scikit-image: pip install 's3edge[masks]'"
        ) from None
