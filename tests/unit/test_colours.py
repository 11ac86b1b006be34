"""Colour words: which a prompt names, and which colours go by them."""

import numpy as np
import pytest
from PIL import ImageColor

from s3edge_inference.colours import colours_in, oklab


def names_in(prompt: str) -> list[str]:
    """Return the names of the colours that a prompt names."""
    return [colour.name for colour in colours_in(prompt)]


def fit(name: str, hex_colour: str) -> float:
    """Rate one sRGB colour by one name, 0 to 1."""
    (colour,) = colours_in(name)
    rgb = np.array([ImageColor.getrgb(hex_colour)[:3]], np.uint8)
    return float(colour.membership(oklab(rgb))[0])


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("the RED car", ["red"]),
        ("red", ["red"]),
        ("Red, green and blue.", ["red", "green", "blue"]),
        ("red and more red", ["red"]),
        ("a gray cat on a grey mat", ["gray", "grey"]),
        ("the salmon on the teal plate", ["salmon", "teal"]),
        ("rebeccapurple", ["rebeccapurple"]),
        ("blue's", ["blue"]),
        ("(white)", ["white"]),
    ],
)
def test_colour_words_are_found_in_the_prompts_order(prompt: str, names: list[str]) -> None:
    """Every colour word is found once, whatever its case and the punctuation around it."""
    assert names_in(prompt) == names


@pytest.mark.parametrize(
    "prompt",
    ["", "   ", "the car", "greenish", "bored", "redder", "blacksmith", "oranges", "réd", "dark"],
)
def test_other_words_name_no_colour(prompt: str) -> None:
    """A word that merely contains or resembles a colour's name is not one."""
    assert names_in(prompt) == []


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("the dark blue door", ["dark blue"]),
        ("light-green leaves", ["light green"]),
        ("DarkBlue", ["darkblue"]),
        ("a pale pink dress", ["pale pink"]),
        ("the sky blue wall", ["sky blue"]),
        ("light golden rod yellow", ["light golden rod yellow"]),
        ("it is dark, blue too", ["blue"]),
        ("sky. blue", ["blue"]),
    ],
)
def test_adjacent_words_are_read_together(prompt: str, names: list[str]) -> None:
    """Words joined by a space or hyphen form one name; punctuation keeps them apart."""
    assert names_in(prompt) == names


@pytest.mark.parametrize("name", sorted(ImageColor.colormap))
def test_every_css_name_is_known_and_matches_its_own_value(name: str) -> None:
    """All CSS colour names are read, and each fits the value CSS gives it."""
    assert names_in(name) == [name]
    assert fit(name, name) > 0.5


@pytest.mark.parametrize(
    ("name", "hex_colours"),
    [
        ("red", ["#ff0000", "#dc143c", "#b22222", "#7a1010", "#f65654", "#c8321e"]),
        ("orange", ["#ffa500", "#ff8c00", "#e2703c", "#ff7f27"]),
        ("yellow", ["#ffff00", "#ffd700", "#e8d44d"]),
        ("green", ["#00ff00", "#008000", "#1e3d1a", "#90ee90", "#6b8e23", "#4caf50"]),
        ("cyan", ["#00ffff", "#40e0d0", "#20b2aa"]),
        ("blue", ["#0000ff", "#000060", "#1e90ff", "#87ceeb", "#4682b4", "#26364d"]),
        ("purple", ["#800080", "#8a2be2", "#9370db", "#4b0082"]),
        ("pink", ["#ffc0cb", "#ff69b4", "#f4a6b8"]),
        ("brown", ["#8b4513", "#a0522d", "#5c4033", "#6f4e37"]),
        ("black", ["#000000", "#141414", "#1c1a20"]),
        ("grey", ["#808080", "#a9a9a9", "#5a5c5e", "#c0c0c0"]),
        ("white", ["#ffffff", "#f2f0ec", "#e8e8ea"]),
    ],
)
def test_everyday_words_cover_shades_and_tints(name: str, hex_colours: list[str]) -> None:
    """A shadowed, bright or pale kind of a colour goes by its everyday name."""
    assert {each: fit(name, each) > 0.5 for each in hex_colours} == dict.fromkeys(hex_colours, True)


@pytest.mark.parametrize(
    ("name", "hex_colours"),
    [
        ("red", ["#ffa500", "#ffc0cb", "#8b4513", "#800080", "#808080", "#deb897"]),
        ("orange", ["#ff0000", "#ffff00", "#8b4513", "#deb897"]),
        ("green", ["#ffff00", "#00ffff", "#0000ff", "#808080", "#ffffff"]),
        ("blue", ["#800080", "#8a2be2", "#00ffff", "#008000", "#808080"]),
        ("purple", ["#0000ff", "#ff0000", "#ffc0cb"]),
        ("black", ["#404040", "#00005a", "#500000"]),
        ("white", ["#b0b0b0", "#ffffa0", "#ffc0cb"]),
        ("grey", ["#ffffff", "#000000", "#6090a0"]),
        ("salmon", ["#ff0000", "#008080", "#ffffff"]),
        ("teal", ["#00ffff", "#008000", "#0000ff"]),
    ],
)
def test_words_do_not_cover_other_colours(name: str, hex_colours: list[str]) -> None:
    """A neighbouring colour does not go by the name."""
    assert {each: fit(name, each) < 0.5 for each in hex_colours} == dict.fromkeys(hex_colours, True)


def test_dark_and_light_divide_a_colour() -> None:
    """Of one colour, "dark" takes the darker kind and "light" the lighter."""
    assert fit("dark blue", "#000080") > 0.5 > fit("dark blue", "#87ceeb")
    assert fit("light blue", "#87ceeb") > 0.5 > fit("light blue", "#000080")
    assert fit("dark grey", "#404040") > 0.5 > fit("dark grey", "#c8c8c8")


def test_css_names_match_their_neighbourhood() -> None:
    """A CSS name fits a slightly different shade of its value as well."""
    assert fit("salmon", "#f2856f") > 0.5
    assert fit("teal", "#107078") > 0.5


def test_oklab_agrees_with_published_values() -> None:
    """The conversion gives the values CSS Color 4 publishes for sRGB white, red and blue."""
    colours = np.array([[255, 255, 255], [255, 0, 0], [0, 0, 255]], np.uint8)
    published = [[1.0, 0.0, 0.0], [0.62796, 0.22486, 0.12585], [0.45201, -0.03246, -0.31153]]
    np.testing.assert_allclose(oklab(colours), published, atol=1e-3)


def test_membership_keeps_the_images_shape() -> None:
    """A whole image is rated at once, pixel by pixel, from 0 to 1."""
    (red,) = colours_in("red")
    rated = red.membership(oklab(np.zeros((4, 7, 3), np.uint8)))
    assert rated.shape == (4, 7)
    assert rated.min() >= 0
    assert rated.max() <= 1
