"""Draws a mask over its image."""

from pathlib import Path

from PIL import Image, ImageChops, ImageFilter


TINT = (255, 0, 102)
OUTLINE = (255, 255, 255)
OPACITY = 0.55

_OUTSIDE_DIMMED = 0.55


def save_overlay(image: Path, mask: Path, target: Path) -> None:
    """
    Save an image whose masked part is tinted and whose rest is dimmed.

    Args:
        image: The image that was segmented.
        mask: Its mask, of the same size.
        target: Where the overlay goes, as PNG.
    """
    with Image.open(image) as opened:
        picture = opened.convert("RGB")
    with Image.open(mask) as opened:
        chosen = opened.convert("L")
    tinted = Image.blend(picture, Image.new("RGB", picture.size, TINT), OPACITY)
    dimmed = Image.blend(picture, Image.new("RGB", picture.size), 1 - _OUTSIDE_DIMMED)
    # An outline, because a tint hardly shows on things that have its colour.
    outline = ImageChops.subtract(chosen.filter(ImageFilter.MaxFilter(5)), chosen)
    picture = Image.composite(tinted, dimmed, chosen)
    picture.paste(OUTLINE, mask=outline)
    picture.save(target, "PNG")


def is_empty(mask: Path) -> bool:
    """Return whether a mask chooses nothing."""
    with Image.open(mask) as opened:
        return opened.getbbox() is None
