"""The CPU predictor's promises, on scenes whose true masks are known."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from s3edge_inference.cpu import CpuPredictor
from s3edge_inference.predictors import Predictor, Segmentation, UnreadableImage


Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

PREDICTOR: Predictor = CpuPredictor()


def encoded(pixels: Pixels | Image.Image, format_: str = "PNG", **options: object) -> bytes:
    """Return an image file."""
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def mask_of(segmentation: Segmentation) -> Mask:
    """Decode a segmentation's mask."""
    return np.asarray(Image.open(io.BytesIO(segmentation.mask_png))) > 0


def picked(image: bytes, prompt: str) -> Mask:
    """Segment by one prompt."""
    (segmentation,) = PREDICTOR.segment(image, [prompt])
    return mask_of(segmentation)


def iou(one: Mask, other: Mask) -> float:
    """Return intersection over union: 1 for equal masks, 0 for disjoint ones."""
    return float((one & other).sum() / (one | other).sum())


def disc(height: int, width: int, y: float, x: float, radius: float) -> Mask:
    """Return a disc's mask; all in pixels."""
    rows, columns = np.mgrid[:height, :width]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 < radius**2, np.bool_)


def box(height: int, width: int, top: int, left: int, bottom: int, right: int) -> Mask:
    """Return a rectangle's mask; ``bottom`` and ``right`` are outside it."""
    mask = np.zeros((height, width), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def noisy(pixels: Pixels, sigma: float) -> Pixels:
    """Add the same Gaussian noise every time, in 8-bit steps."""
    noise = np.random.default_rng(7).normal(0, sigma, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def plain(height: int, width: int, colour: str = "#808080") -> Pixels:
    """Return a surface of one colour."""
    return np.full((height, width, 3), ImageColor.getrgb(colour)[:3], np.uint8)


def textured_grey(height: int, width: int) -> Pixels:
    """Return a wavy, noisy grey surface."""
    rows, columns = np.mgrid[:height, :width]
    waves = 128 + 25 * np.sin(rows / 9) * np.cos(columns / 13)
    return noisy(np.repeat(waves[..., np.newaxis], 3, axis=2).astype(np.uint8), 12)


def painted(pixels: Pixels, mask: Mask, colour: str) -> Pixels:
    """Colour the mask's pixels, in a copy."""
    result = pixels.copy()
    result[mask] = ImageColor.getrgb(colour)[:3]
    return result


@pytest.mark.parametrize("noise", [0.0, 12.0, 20.0])
def test_a_coloured_disc_is_picked_from_texture(noise: float) -> None:
    """A noisy red disc on textured, noisy grey is found to the pixel, or nearly."""
    truth = disc(360, 420, 170, 230, 70)
    scene = noisy(painted(textured_grey(360, 420), truth, "#c8201c"), noise)
    assert iou(picked(encoded(scene), "the red disc"), truth) >= 0.95


SHAPES = {
    "red": disc(400, 600, 100, 100, 60),
    "green": box(400, 600, 50, 230, 150, 350),
    "blue": disc(400, 600, 110, 480, 70),
    "yellow": box(400, 600, 230, 40, 350, 180),
    "purple": disc(400, 600, 290, 300, 65),
    "orange": box(400, 600, 220, 420, 360, 560),
}
SHADES = {
    "red": "#b81c22",
    "green": "#2e8b3a",
    "blue": "#2f56b0",
    "yellow": "#f0d020",
    "purple": "#7b2fa8",
    "orange": "#f58a1c",
}


def many_shapes() -> Pixels:
    """Return all of ``SHAPES`` in their ``SHADES`` on light grey."""
    scene = plain(400, 600, "#d8d6d0")
    for name, mask in SHAPES.items():
        scene = painted(scene, mask, SHADES[name])
    return noisy(scene, 6)


@pytest.mark.parametrize("quality", [None, 75])
def test_each_shape_is_picked_by_its_name(quality: int | None) -> None:
    """Of six coloured shapes each prompt picks its own, from PNG and from a compressed JPEG."""
    scene = many_shapes()
    image = encoded(scene) if quality is None else encoded(scene, "JPEG", quality=quality)
    prompts = [f"the {name} thing" for name in SHAPES]
    for name, found in zip(SHAPES, PREDICTOR.segment(image, prompts), strict=True):
        assert found.labels == (name,)
        assert iou(mask_of(found), SHAPES[name]) >= 0.95, name
        assert found.confidence > 0.8


def test_two_colours_in_a_prompt_are_united() -> None:
    """A prompt that names two colours picks both and lists both."""
    (found,) = PREDICTOR.segment(encoded(many_shapes()), ["the red and the blue one"])
    assert found.labels == ("red", "blue")
    assert iou(mask_of(found), SHAPES["red"] | SHAPES["blue"]) >= 0.95


@pytest.mark.parametrize("prompt", ["the green leaf", "the leaf"])
def test_gradient_backgrounds_are_not_picked(prompt: str) -> None:
    """On a background that changes smoothly the thing is picked, by colour or by standing out."""
    ramp = np.linspace(60, 220, 500, dtype=np.uint8)
    scene = np.stack([np.tile(ramp, (380, 1)), np.full((380, 500), 150, np.uint8)], axis=-1)
    scene = np.concatenate([scene, np.tile(ramp[::-1], (380, 1))[..., np.newaxis]], axis=-1)
    scene = (scene // 4 + 110).astype(np.uint8)
    truth = disc(380, 500, 190, 260, 80)
    assert iou(picked(encoded(painted(scene, truth, "#1f7a2e")), prompt), truth) >= 0.95


@pytest.mark.parametrize("quality", [None, 75])
def test_the_foreground_is_what_stands_out(quality: int | None) -> None:
    """Without a colour word, a thing of two colours is picked whole from a textured surface."""
    truth = disc(400, 500, 200, 250, 90)
    scene = painted(textured_grey(400, 500), truth, "#c04020")
    scene = painted(scene, truth & box(400, 500, 0, 0, 200, 500), "#204090")
    image = encoded(scene) if quality is None else encoded(scene, "JPEG", quality=quality)
    (found,) = PREDICTOR.segment(image, ["the ball"])
    assert found.labels == ("foreground",)
    assert iou(mask_of(found), truth) >= 0.95


def test_a_foreground_at_the_border_is_picked() -> None:
    """A thing that touches one side of the image still stands out from the rest of it."""
    truth = disc(400, 500, 330, 250, 100)
    scene = painted(textured_grey(400, 500), truth, "#f0f0e0")
    assert iou(picked(encoded(scene), "the thing"), truth) >= 0.9


@pytest.mark.parametrize("prompt", ["red", "the ring"])
def test_a_hole_stays_open(prompt: str) -> None:
    """The background seen through a ring is not part of it."""
    truth = disc(400, 400, 200, 200, 120) & ~disc(400, 400, 200, 200, 60)
    scene = painted(textured_grey(400, 400), truth, "#d02020")
    assert iou(picked(encoded(scene), prompt), truth) >= 0.95


@pytest.mark.parametrize("thickness", [4, 8, 14])
def test_thin_shapes_are_picked(thickness: int) -> None:
    """A slanting line far thinner than a superpixel is found."""
    canvas = Image.fromarray(plain(400, 500, "#c8c8c8"))
    ImageDraw.Draw(canvas).line([(40, 60), (460, 340)], fill="#1030c0", width=thickness)
    scene = np.asarray(canvas)
    truth = np.asarray((scene != 0xC8).any(axis=-1), np.bool_)
    assert iou(picked(encoded(noisy(scene, 5)), "the blue line"), truth) >= 0.9


@pytest.mark.parametrize(
    ("width", "height"), [(64, 64), (90, 500), (1200, 300), (3000, 2000), (1001, 1499)]
)
def test_masks_fit_at_any_size(width: int, height: int) -> None:
    """Small, long and large images give masks of their own size whose edges follow the pixels."""
    truth = disc(height, width, height * 0.55, width * 0.45, min(height, width) * 0.3)
    scene = noisy(painted(plain(height, width, "#507090"), truth, "#f09020"), 6)
    image = encoded(scene, "JPEG", quality=90)
    for found in PREDICTOR.segment(image, ["orange", "the thing"]):
        assert iou(mask_of(found), truth) >= 0.95, found.labels


def test_edges_are_drawn_on_the_stored_pixels() -> None:
    """A mask of a large image is finer than the reduced copy: a notch of few pixels is kept."""
    truth = box(2000, 3000, 600, 700, 1400, 2300)
    truth[600:612, 1500:1504] = False
    scene = painted(plain(2000, 3000, "#f0f0f0"), truth, "#108030")
    found = picked(encoded(scene, compress_level=1), "green")
    assert iou(found, truth) >= 0.999
    assert not found[600:610, 1501:1503].any()


def test_small_specks_and_holes_are_cleaned_up() -> None:
    """Single stray pixels are neither picked nor left out."""
    truth = disc(300, 300, 150, 150, 80)
    scene = painted(plain(300, 300, "#909090"), truth, "#d02020")
    scene[20:23, 20:23] = (208, 32, 32)
    scene[149:152, 149:152] = (144, 144, 144)
    found = picked(encoded(scene), "red")
    assert not found[:40, :40].any()
    assert found[140:160, 140:160].all()


@pytest.mark.parametrize("prompt", ["green", "the thing"])
def test_nothing_there_is_an_empty_mask(prompt: str) -> None:
    """A colour that is absent, or a plain noisy surface, gives zeros and no confidence."""
    (found,) = PREDICTOR.segment(encoded(noisy(plain(300, 400), 6)), [prompt])
    assert not mask_of(found).any()
    assert found.confidence == 0


def test_a_colour_everywhere_is_a_full_mask() -> None:
    """An image all of the colour is picked whole."""
    (found,) = PREDICTOR.segment(encoded(noisy(plain(200, 300, "#3060c0"), 6)), ["blue"])
    assert mask_of(found).all()
    assert found.confidence > 0.8


def test_masks_have_the_promised_format() -> None:
    """A mask is an 8-bit greyscale PNG of the image's size with no value but 0 and 255."""
    image = encoded(many_shapes())
    for found in PREDICTOR.segment(image, ["red", "the thing", "magenta"]):
        with Image.open(io.BytesIO(found.mask_png)) as mask:
            assert (mask.format, mask.mode, mask.size) == ("PNG", "L", (600, 400))
            assert set(np.unique(np.asarray(mask))) <= {0, 255}
        assert 0 <= found.confidence <= 1


def test_the_same_question_gives_the_same_answer() -> None:
    """Masks are deterministic, and do not depend on what else is asked."""
    image = encoded(many_shapes(), "JPEG", quality=75)
    prompts = ["red", "the thing", "dark blue", "a thing"]
    together = PREDICTOR.segment(image, prompts)
    assert together == CpuPredictor().segment(image, prompts)
    assert PREDICTOR.segment(image, ["the thing"]) == [together[1]]
    assert PREDICTOR.segment(image, ["dark blue"]) == [together[2]]


def test_no_prompts_give_no_segmentations() -> None:
    """An empty list of prompts is answered by an empty list."""
    assert PREDICTOR.segment(encoded(plain(8, 8)), []) == []


def test_it_says_what_it_is() -> None:
    """The model's name and version tell that this is the CPU stand-in."""
    assert (PREDICTOR.model_name, PREDICTOR.model_version) == ("s3edge-cpu", "cpu-superpixels-1")


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (2, 1), (1, 3), (1, 97), (400, 1), (3, 3), (7, 9), (2, 250_000)]
)
def test_tiny_and_narrow_images_work(width: int, height: int) -> None:
    """Images too small for superpixels are segmented all the same."""
    scene = plain(height, width, "#d01010")
    colour, foreground = PREDICTOR.segment(encoded(scene), ["red", "the thing"])
    assert mask_of(colour).shape == (height, width)
    assert mask_of(colour).all()
    assert mask_of(foreground).shape == (height, width)


DAMAGED = {
    "empty": b"",
    "garbage": bytes(range(256)) * 40,
    "text": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "signature alone": b"\x89PNG\r\n\x1a\n",
    "gif": encoded(plain(20, 20), "GIF"),
    "bmp": encoded(plain(20, 20), "BMP"),
    "png without its end": encoded(many_shapes())[:-2000],
    "half a png": encoded(many_shapes())[:100_000],
    "half a jpeg": encoded(many_shapes(), "JPEG")[:15_000],
    "half a webp": encoded(many_shapes(), "WEBP")[:3_000],
    "png header cut": encoded(plain(20, 20))[:20],
}


@pytest.mark.parametrize("image", DAMAGED.values(), ids=DAMAGED.keys())
def test_what_cannot_be_decoded_is_unreadable(image: bytes) -> None:
    """Truncated files, other formats and garbage are refused in words fit for users."""
    with pytest.raises(UnreadableImage, match=r"^The (file is not|image is)") as refused:
        PREDICTOR.segment(image, ["red"])
    assert "BytesIO" not in str(refused.value)


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 3000), value=st.integers(0, 255))
def test_a_flipped_byte_never_surprises(position: int, value: int) -> None:
    """A file with one byte changed is segmented or unreadable, and nothing else."""
    damaged = bytearray(SMALL_JPEG)
    damaged[position % len(damaged)] = value
    try:
        (found,) = PREDICTOR.segment(bytes(damaged), ["red"])
    except UnreadableImage:
        return
    assert found.labels == ("red",)


SMALL_JPEG = encoded(painted(plain(48, 64), disc(48, 64, 24, 32, 12), "#d02020"), "JPEG")


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that ends before its first pixel."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


@pytest.mark.parametrize(("width", "height"), [(8500, 6000), (12_000, 9000), (60_000, 60_000)])
def test_too_many_pixels_are_refused_by_the_header(width: int, height: int) -> None:
    """A file that claims over 50 megapixels is refused for that, though it holds no pixel."""
    with pytest.raises(UnreadableImage, match="at most 50 megapixels"):
        PREDICTOR.segment(png_header(width, height), ["red"])


def test_the_pixel_limit_is_inclusive() -> None:
    """An image of exactly the limit is accepted, one pixel more is not."""
    limited = CpuPredictor(max_pixels=600)
    assert limited.segment(encoded(plain(20, 30)), ["red"])
    with pytest.raises(UnreadableImage, match="too many pixels"):
        limited.segment(encoded(plain(601, 1)), ["red"])


RED_ON_WHITE = painted(plain(80, 100, "white"), disc(80, 100, 40, 50, 25), "#d01818")
MODES = {
    "RGB": encoded(RED_ON_WHITE),
    "RGBA": encoded(Image.fromarray(RED_ON_WHITE).convert("RGBA")),
    "P": encoded(Image.fromarray(RED_ON_WHITE).quantize(8)),
    "CMYK": encoded(Image.fromarray(RED_ON_WHITE).convert("CMYK"), "JPEG", quality=90),
    "YCbCr": encoded(RED_ON_WHITE, "JPEG", quality=90, progressive=True),
    "WEBP lossless": encoded(RED_ON_WHITE, "WEBP", lossless=True),
}


@pytest.mark.parametrize("image", MODES.values(), ids=MODES.keys())
def test_every_colour_mode_decodes(image: bytes) -> None:
    """However the file keeps its colours, the red disc is red."""
    assert iou(picked(image, "red"), disc(80, 100, 40, 50, 25)) >= 0.95


DARK_ON_LIGHT = np.where(disc(80, 100, 40, 50, 25), 10, 250).astype(np.uint8)
GREY_MODES = {
    "1": encoded(Image.fromarray(DARK_ON_LIGHT).convert("1")),
    "L": encoded(DARK_ON_LIGHT),
    "LA": encoded(Image.fromarray(DARK_ON_LIGHT).convert("LA")),
    "I;16": encoded(Image.fromarray(DARK_ON_LIGHT.astype(np.uint16) * 257)),
    "L JPEG": encoded(DARK_ON_LIGHT, "JPEG"),
}


@pytest.mark.parametrize("image", GREY_MODES.values(), ids=GREY_MODES.keys())
def test_every_grey_mode_decodes(image: bytes) -> None:
    """However the file keeps its greys, 16-bit included, the black disc is black."""
    assert iou(picked(image, "black"), disc(80, 100, 40, 50, 25)) >= 0.95


def test_transparent_pixels_are_white() -> None:
    """What lies hidden under transparency is not seen: it is composited on white."""
    pixels = np.zeros((60, 80, 4), np.uint8)
    pixels[...] = (220, 20, 20, 0)
    pixels[20:40, 20:60, 3] = 255
    image = encoded(Image.fromarray(pixels))
    assert iou(picked(image, "red"), box(60, 80, 20, 20, 40, 60)) >= 0.95
    assert picked(image, "white")[:15].all()


def test_exif_orientation_is_not_applied() -> None:
    """The mask lies on the stored pixel grid even where a viewer would rotate the image."""
    exif = Image.Exif()
    exif[0x0112] = 6
    scene = painted(plain(60, 120, "white"), box(60, 120, 10, 5, 50, 40), "#d01818")
    image = encoded(scene, "JPEG", quality=95, exif=exif)
    assert iou(picked(image, "red"), box(60, 120, 10, 5, 50, 40)) >= 0.95


def test_a_photograph_is_segmented_sensibly() -> None:
    """On a real photograph "the orange suit" picks the suit, not the wall or the helmet."""
    image = (Path(skimage.__file__).parent / "data" / "astronaut.png").read_bytes()
    found = picked(image, "the orange suit")
    assert found[260:460, 40:130].mean() > 0.8
    assert found[:120].mean() < 0.01
    assert found[370:500, 310:480].mean() < 0.05


@settings(max_examples=25, deadline=None)
@given(
    names=st.permutations(["red", "green", "blue", "yellow", "purple", "white", "black"]),
    shape=st.sampled_from(["disc", "box"]),
    height=st.integers(90, 260),
    width=st.integers(90, 260),
    place=st.tuples(st.floats(0.35, 0.65), st.floats(0.35, 0.65)),
    size=st.floats(0.15, 0.3),
    noise=st.floats(0, 8),
)
def test_any_shape_of_any_colour_is_picked(
    names: list[str],
    shape: str,
    height: int,
    width: int,
    place: tuple[float, float],
    size: float,
    noise: float,
) -> None:
    """Wherever a disc or a box is, and whatever its and its background's colours, it is found."""
    y, x, radius = place[0] * height, place[1] * width, size * min(height, width)
    if shape == "disc":
        truth = disc(height, width, y, x, radius)
    else:
        truth = box(
            height, width, int(y - radius), int(x - radius), int(y + radius), int(x + radius)
        )
    shades = SHADES | {"white": "#f4f4f0", "black": "#101012"}
    scene = painted(plain(height, width, shades[names[1]]), truth, shades[names[0]])
    image = encoded(noisy(scene, noise))
    by_colour, by_standing_out = PREDICTOR.segment(image, [f"the {names[0]} shape", "the shape"])
    assert iou(mask_of(by_colour), truth) >= 0.9
    assert iou(mask_of(by_standing_out), truth) >= 0.9
