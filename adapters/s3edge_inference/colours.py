"""
The colours that a prompt names, and how well an image's colours match them.

Colours are compared in OKLab, where equal distances look about equally different and where, unlike
in CIELAB, a blue keeps its hue from pastel to saturated. Everyday words ("red", "dark green") stand
for a range of hue, chroma and lightness, because people call a shadowed and a glaring tomato red
alike; the rarer CSS names ("salmon", "teal") stand for the neighbourhood of their CSS value.

Sources: B. Ottosson, "A perceptual color space for image processing" (2020) for OKLab; IEC
61966-2-1 for the sRGB transfer function; CSS Color Module Level 4, section 6.1, for the names (by
way of Pillow's ``ImageColor.colormap``). The ranges follow the eleven basic terms of Berlin and Kay
(1969), with cyan and magenta added; their bounds were set by eye on photographs.
"""

import re
from itertools import pairwise
from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor


OkLab: TypeAlias = NDArray[np.float32]
"""OKLab values along the last axis: L from 0 to 1, then a and b, about -0.4 to 0.4."""


@attrs.frozen
class LchRange:
    """
    A box with soft sides in OKLab's cylindrical form.

    Attributes:
        lightness: Lowest and highest L, 0 to 1.
        chroma: Lowest and highest distance from the grey axis; sRGB reaches 0.32.
        hue_deg: From and to, counted upwards, through 360 if ``to`` is the smaller; ``None`` for
            every hue.
    """

    lightness: tuple[float, float]
    chroma: tuple[float, float]
    hue_deg: tuple[float, float] | None = None


@attrs.frozen
class NamedColour:
    """
    A colour word and what it stands for.

    Attributes:
        name: As the prompt has it, in lower case with single spaces.
        ranges: Every range that goes by the name.
        reference: OKLab values whose neighbourhood goes by the name, or ``None``.
    """

    name: str
    ranges: tuple[LchRange, ...] = ()
    reference: tuple[float, float, float] | None = None

    def membership(self, lab: OkLab) -> NDArray[np.float32]:
        """
        Rate how well colours fit the name.

        Args:
            lab: OKLab values, shape ``(..., 3)``.

        Returns:
            From 0 (nobody would call it so) to 1, shape ``(...)``; 0.5 is the border.
        """
        best = np.zeros(lab.shape[:-1], np.float32)
        if self.reference is not None:
            np.maximum(best, _nearness(lab, self.reference), out=best)
        if self.ranges:
            lightness, a, b = lab[..., 0], lab[..., 1], lab[..., 2]
            chroma = np.hypot(a, b)
            hue_deg = np.degrees(np.arctan2(b, a))
            for each in self.ranges:
                fit = _inside(lightness, each.lightness, _LIGHTNESS_SOFTNESS)
                fit = np.minimum(fit, _inside(chroma, each.chroma, _CHROMA_SOFTNESS))
                if each.hue_deg is not None:
                    fit = np.minimum(fit, _inside_hue(hue_deg, each.hue_deg))
                np.maximum(best, fit, out=best)
        return best


def colours_in(prompt: str) -> tuple[NamedColour, ...]:
    """
    Find the colours that a prompt names.

    Whole words only, in any case: "the RED car" names red, "greenish" names nothing. Words joined
    by a space or a hyphen are read together when that is a name ("sky blue", "dark-green").

    Args:
        prompt: Free text, in English.

    Returns:
        Each colour once, in the order of the text; empty if it names none.
    """
    words = list(_WORD.finditer(prompt.lower()))
    found: dict[str, NamedColour] = {}
    position = 0
    while position < len(words):
        # The longest name wins: "light sea green" is not "green".
        for length in range(min(_MOST_WORDS, len(words) - position), 0, -1):
            run = words[position : position + length]
            colour = _read(run, prompt.lower())
            if colour is not None:
                found.setdefault(colour.name, colour)
                position += length
                break
        else:
            position += 1
    return tuple(found.values())


def oklab(rgb: NDArray[np.uint8]) -> OkLab:
    """
    Convert sRGB to OKLab.

    Args:
        rgb: 8-bit sRGB, shape ``(..., 3)``.

    Returns:
        OKLab, shape ``(..., 3)``.
    """
    return np.asarray(np.cbrt(_LINEAR[rgb] @ _RGB_TO_LMS.T) @ _LMS_TO_LAB.T, np.float32)


_LIGHTNESS_SOFTNESS = 0.1
_CHROMA_SOFTNESS = 0.03
_HUE_SOFTNESS_DEG = 12.0
_NEAR, _FAR = 0.05, 0.13
_ANY = (-1.0, 2.0)

_BASIC: dict[str, tuple[float, tuple[LchRange, ...]]] = {
    # The word, the lightness between its dark and its light kind, and what goes by it.
    "red": (
        0.52,
        (
            LchRange((0.24, 0.70), (0.10, 1.0), (5.0, 33.0)),
            # Towards orange only the vivid ones are red: the dull ones are skin and brick.
            LchRange((0.24, 0.60), (0.14, 1.0), (5.0, 37.0)),
        ),
    ),
    "orange": (
        0.76,
        (
            LchRange((0.56, 0.90), (0.11, 1.0), (42.0, 78.0)),
            LchRange((0.48, 0.85), (0.12, 1.0), (35.0, 70.0)),
        ),
    ),
    "brown": (
        0.42,
        (
            LchRange((0.18, 0.58), (0.035, 0.13), (30.0, 88.0)),
            LchRange((0.18, 0.52), (0.035, 0.17), (24.0, 62.0)),
        ),
    ),
    "yellow": (0.88, (LchRange((0.62, 1.1), (0.09, 1.0), (82.0, 116.0)),)),
    "green": (0.58, (LchRange((0.16, 1.1), (0.045, 1.0), (114.0, 174.0)),)),
    "cyan": (0.75, (LchRange((0.40, 1.1), (0.045, 1.0), (174.0, 218.0)),)),
    "blue": (0.52, (LchRange((0.16, 0.96), (0.045, 1.0), (216.0, 286.0)),)),
    "purple": (0.50, (LchRange((0.16, 0.90), (0.05, 1.0), (288.0, 336.0)),)),
    "magenta": (0.62, (LchRange((0.35, 0.90), (0.16, 1.0), (318.0, 358.0)),)),
    "pink": (
        0.78,
        (
            LchRange((0.60, 0.95), (0.05, 1.0), (330.0, 8.0)),
            LchRange((0.74, 0.95), (0.05, 0.15), (330.0, 30.0)),
        ),
    ),
    "black": (0.20, (LchRange((-1.0, 0.30), (-1.0, 0.06)), LchRange((-1.0, 0.18), _ANY))),
    "grey": (0.60, (LchRange((0.30, 0.88), (-1.0, 0.03)),)),
    "white": (0.92, (LchRange((0.87, 2.0), (-1.0, 0.035)),)),
}
_SAME_AS = {"gray": "grey", "violet": "purple", "aqua": "cyan", "fuchsia": "magenta"}
_DARK = ("dark", "deep")
_LIGHT = ("light", "pale")

_WORD = re.compile(r"[^\W_]+")
_JOINT = re.compile(r"[\s-]+")
_MOST_WORDS = 4  # "light golden rod yellow"

_SRGB_LINEAR_BELOW = 0.04045
_LINEAR = np.where(
    np.arange(256) / 255 <= _SRGB_LINEAR_BELOW,
    np.arange(256) / 255 / 12.92,
    ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4,
).astype(np.float32)
_RGB_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ],
    np.float32,
)
_LMS_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ],
    np.float32,
)


def _read(run: list[re.Match[str]], text: str) -> NamedColour | None:
    """Return the colour that adjacent words name together."""
    gaps = (text[left.end() : right.start()] for left, right in pairwise(run))
    if not all(_JOINT.fullmatch(gap) for gap in gaps):
        return None
    words = [match.group() for match in run]
    name, compact = " ".join(words), "".join(words)
    ranges = _everyday(compact)
    css = ImageColor.colormap.get(compact)
    if ranges:
        # As one word "darkgray" may mean CSS's value, which is a light grey; as two it cannot.
        is_css_alone = len(run) == 1 and compact not in _BASIC and compact not in _SAME_AS
        return NamedColour(name, ranges, _reference(compact) if css and is_css_alone else None)
    return NamedColour(name, (), _reference(compact)) if css else None


def _everyday(word: str) -> tuple[LchRange, ...]:
    """Return what an everyday colour word, perhaps made dark or light, stands for."""
    if (plain := _SAME_AS.get(word, word)) in _BASIC:
        return _BASIC[plain][1]
    for modifiers, is_dark in ((_DARK, True), (_LIGHT, False)):
        for modifier in modifiers:
            rest = word.removeprefix(modifier)
            plain = _SAME_AS.get(rest, rest)
            if rest == word or plain not in _BASIC:
                continue
            middle, ranges = _BASIC[plain]
            return tuple((_darker if is_dark else _lighter)(each, middle) for each in ranges)
    return ()


def _darker(range_: LchRange, middle: float) -> LchRange:
    lowest, highest = range_.lightness
    return attrs.evolve(range_, lightness=(lowest, min(highest, middle)))


def _lighter(range_: LchRange, middle: float) -> LchRange:
    lowest, highest = range_.lightness
    dullest, purest = range_.chroma
    # A pastel's chroma is small: "light yellow" is nearly white.
    return LchRange(
        (max(lowest, middle), highest), (min(dullest, dullest * 0.6), purest), range_.hue_deg
    )


def _reference(css_name: str) -> tuple[float, float, float]:
    red, green, blue = ImageColor.getrgb(css_name)[:3]
    lightness, a, b = oklab(np.array([red, green, blue], np.uint8)).tolist()
    return lightness, a, b


def _nearness(lab: OkLab, reference: tuple[float, float, float]) -> NDArray[np.float32]:
    difference = lab - np.array(reference, np.float32)
    # Half weight on lightness: shading changes it most within one thing.
    difference[..., 0] *= 0.5
    distance = np.sqrt((difference**2).sum(axis=-1))
    return np.asarray(np.clip((_FAR - distance) / (_FAR - _NEAR), 0, 1), np.float32)


def _inside(
    values: NDArray[np.float32], bounds: tuple[float, float], softness: float
) -> NDArray[np.float32]:
    """Ramp from 0 to 1 across each bound, which lies at 0.5."""
    depth = np.minimum(values - bounds[0], bounds[1] - values)
    return np.asarray(np.clip(depth / softness + 0.5, 0, 1), np.float32)


def _inside_hue(hue_deg: NDArray[np.float32], bounds: tuple[float, float]) -> NDArray[np.float32]:
    half_width = (bounds[1] - bounds[0]) % 360 / 2
    off_centre = np.abs((hue_deg - bounds[0] - half_width + 180) % 360 - 180)
    return np.asarray(
        np.clip((half_width - off_centre) / _HUE_SOFTNESS_DEG + 0.5, 0, 1), np.float32
    )
