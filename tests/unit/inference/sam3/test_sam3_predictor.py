"""SAM 3's promises, on a tiny model of the real classes with random weights."""

import io
import json
import pickle
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from s3edge_inference.predictors import Segmentation, UnreadableImage
from s3edge_inference.sam3.predictor import Sam3Predictor
from tests.unit.inference.sam3.conftest import Loaded


Mask = NDArray[np.bool_]

PROMPTS = ["a", "b", "c d", "e f g", "h", "i", "j", "k", "l m n o", "p"]


def encoded(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    """Return an image file."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def noise(width: int, height: int, seed: int) -> Image.Image:
    """Return an image of random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


WIDE = encoded(noise(90, 40, 1))
TALL = encoded(noise(33, 70, 2))
GRADIENT = encoded(Image.linear_gradient("L").convert("RGB"))


def mask_of(segmentation: Segmentation) -> Mask:
    """Decode a segmentation's mask, having looked that it is one."""
    with Image.open(io.BytesIO(segmentation.mask_png)) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        pixels = np.asarray(image)
    assert set(np.unique(pixels).tolist()) <= {0, 255}
    return np.asarray(pixels > 0, np.bool_)


def scores_of(segmentation: Segmentation) -> list[float]:
    """Return the scores of its instances."""
    return [instance["score"] for instance in segmentation.metadata["instances"]]


class Counter:
    """Counts how often a part of the model runs, and over how many images or prompts."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, _module: object, _inputs: object, outputs: object) -> None:
        """Be called by PyTorch, after the part ran."""
        self.sizes.append(len(outputs.last_hidden_state))  # type: ignore[attr-defined]


@pytest.mark.parametrize("image", [WIDE, TALL, GRADIENT], ids=["wide", "tall", "grey"])
def test_a_mask_has_the_size_of_the_stored_image(predictor: Sam3Predictor, image: bytes) -> None:
    """One prompt, one greyscale PNG of 0 and 255, on the stored pixel grid."""
    with Image.open(io.BytesIO(image)) as opened:
        width, height = opened.size
    [found] = predictor.segment(image, ["a"])
    mask = mask_of(found)
    assert mask.shape == (height, width)
    assert mask.any()
    assert not mask.all()


def test_orientation_in_exif_is_left_alone(predictor: Sam3Predictor) -> None:
    """As the CPU predictor: what is turned in a viewer is not turned in the mask."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(noise(90, 40, 1), "PNG", exif=exif)
    assert predictor.segment(turned, ["a"]) == predictor.segment(WIDE, ["a"])


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (5000, 2)])
def test_tiny_and_narrow_images_work(predictor: Sam3Predictor, size: tuple[int, int]) -> None:
    """Nothing is too small or too long for the square that the model looks at."""
    [found] = predictor.segment(encoded(noise(*size, 3)), ["a"])
    assert mask_of(found).shape == size[::-1]


def test_instances_are_in_the_metadata(predictor: Sam3Predictor) -> None:
    """Boxes in pixels of the stored image, scores from 0 to 1, the surest first; all of it JSON."""
    [found] = predictor.segment(WIDE, ["a b"])
    instances = found.metadata["instances"]
    assert json.loads(json.dumps(found.metadata)) == found.metadata
    assert 1 < len(instances) <= 5
    for instance in instances:
        assert set(instance) == {"box", "score"}
        left, top, right, bottom = instance["box"]
        assert 0 <= left < right <= 90
        assert 0 <= top < bottom <= 40
        assert all(round(edge, 1) == edge for edge in instance["box"])
        assert round(instance["score"], 4) == instance["score"]
    assert scores_of(found) == sorted(scores_of(found), reverse=True)
    assert found.confidence == scores_of(found)[0]
    assert found.labels == ("a b",)


def test_it_says_what_the_model_says(predictor: Sam3Predictor) -> None:
    """Scores and boxes are those of one plain call of the model, by the formulas of its documentation."""
    import torch  # noqa: PLC0415 - not installed everywhere

    loaded = predictor._ready()
    with Image.open(io.BytesIO(WIDE)) as image:
        pixel_values = loaded.preprocessing.pixel_values(image)[None]
    tokens = loaded.tokenizer(["a b"], padding="max_length", max_length=32, return_tensors="pt")
    with torch.inference_mode():
        outputs = loaded.model(pixel_values=pixel_values, **tokens)
    scores = (outputs.pred_logits.sigmoid() * outputs.presence_logits.sigmoid())[0]
    # What lies outside the image is cut off.
    boxes = outputs.pred_boxes[0].clamp(0, 1) * torch.tensor([90.0, 40.0, 90.0, 40.0])

    [found] = predictor.segment(WIDE, ["a b"])
    assert scores_of(found)
    for instance in found.metadata["instances"]:
        assert min((scores - instance["score"]).abs()) < 1e-4
    surest = boxes[scores.argmax()].tolist()
    assert found.metadata["instances"][0]["box"] == pytest.approx(surest, abs=0.06)


def test_a_lower_threshold_only_adds(predictor: Sam3Predictor, load: Loaded) -> None:
    """What was found stays found, pixel for pixel; what is less sure comes behind it."""
    scores = [
        score for found in predictor.segment(GRADIENT, PROMPTS[:3]) for score in scores_of(found)
    ]
    middle = sorted(scores)[len(scores) // 2]
    found = [load(threshold=f"{middle * share:.6f}") for share in (1.0, 0.9)] + [predictor]
    counts = set()
    for surer, laxer in pairwise(each.segment(GRADIENT, PROMPTS[:3]) for each in found):
        for fewer, more in zip(surer, laxer, strict=True):
            assert not (mask_of(fewer) & ~mask_of(more)).any()
            assert scores_of(fewer) == scores_of(more)[: len(scores_of(fewer))]
            counts |= {len(scores_of(fewer)), len(scores_of(more))}
    assert len(counts) > 2


def test_only_what_scores_above_the_threshold_is_found(
    predictor: Sam3Predictor, load: Loaded
) -> None:
    """The threshold is a setting, and lies between two instances here."""
    [all_of_them] = predictor.segment(GRADIENT, ["a"])
    scores = sorted(set(scores_of(all_of_them)))
    between = (scores[0] + scores[-1]) / 2
    [found] = load(threshold=f"{between:.6f}").segment(GRADIENT, ["a"])
    assert scores_of(found) == [score for score in scores_of(all_of_them) if score > between]


def test_nothing_found_is_an_empty_mask(load: Loaded) -> None:
    """No error: all zero, no label, no instance, no confidence."""
    [found] = load(threshold="0.999999").segment(WIDE, ["a"])
    assert mask_of(found).shape == (40, 90)
    assert not mask_of(found).any()
    assert (found.labels, found.confidence, found.metadata) == ((), 0.0, {"instances": []})


def test_ten_prompts_encode_the_image_once(predictor: Sam3Predictor) -> None:
    """The vision encoder, nearly all of the work, runs once; the prompts differ all the same."""
    model = predictor._ready().model
    images, prompts = Counter(), Counter()
    hooks = [
        model.vision_encoder.register_forward_hook(images),
        model.text_encoder.register_forward_hook(prompts),
    ]
    found = predictor.segment(WIDE, PROMPTS)
    for hook in hooks:
        hook.remove()
    assert images.sizes == [1]
    assert sum(prompts.sizes) == len(PROMPTS)
    assert len({segmentation.mask_png for segmentation in found}) > 5


def test_images_of_a_batch_are_encoded_together(predictor: Sam3Predictor) -> None:
    """Six images, of which one is broken and one has no prompts, are four at once at the most."""
    images = Counter()
    hook = predictor._ready().model.vision_encoder.register_forward_hook(images)
    items = [(encoded(noise(30, 20 + seed, seed)), ["a"]) for seed in range(5)]
    found = predictor.segment_batch([*items[:2], (b"none", ["a"]), (WIDE, []), *items[2:]])
    hook.remove()
    assert images.sizes == [4, 1]
    assert isinstance(found[2], UnreadableImage)
    assert found[3] == []


def test_company_changes_nothing(predictor: Sam3Predictor) -> None:
    """Images of different sizes with several prompts each give what they give one by one."""
    items = [(WIDE, PROMPTS), (TALL, PROMPTS[3:8]), (GRADIENT, PROMPTS[:1])]
    for (image, prompts), together in zip(items, predictor.segment_batch(items), strict=True):
        assert not isinstance(together, UnreadableImage)
        for prompt, found in zip(prompts, together, strict=True):
            [alone] = predictor.segment(image, [prompt])
            assert found.labels == alone.labels
            assert scores_of(found) == pytest.approx(scores_of(alone), abs=2e-4)
            # Sums of floats in another order may move a pixel that lies on an edge.
            assert (mask_of(found) != mask_of(alone)).mean() < 0.005


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_question_has_the_same_answer(load: Loaded, dtype: str) -> None:
    """Twice from one model, and from another that was loaded from the same weights."""
    one, other = load(dtype=dtype), load(dtype=dtype)
    found = one.segment(WIDE, PROMPTS[:3])
    assert found == one.segment(WIDE, PROMPTS[:3]) == other.segment(WIDE, PROMPTS[:3])
    assert one.model_version == other.model_version


def test_half_the_digits_find_about_the_same(load: Loaded) -> None:
    """In bfloat16 the weights take half the room, and most pixels are decided alike."""
    exact = load(threshold="0.000001", dtype="float32")
    half = load(threshold="0.000001", dtype="bfloat16")
    assert (exact.info().dtype, half.info().dtype) == ("float32", "bfloat16")
    assert half.info().weights_size_gb == pytest.approx(exact.info().weights_size_gb / 2, abs=1e-3)
    assert half.model_version != exact.model_version
    [one], [other] = exact.segment(GRADIENT, ["a"]), half.segment(GRADIENT, ["a"])
    assert other.confidence == pytest.approx(one.confidence, abs=0.05)
    assert (mask_of(one) != mask_of(other)).mean() < 0.1


def test_long_prompts_are_cut(predictor: Sam3Predictor) -> None:
    """What is beyond the text encoder's 32 tokens, its two marks among them, is not read."""
    letters = [*"abcdefghijklmnopqrstuvwxyzabcd"]
    [cut] = predictor.segment(WIDE, [" ".join(letters)])
    [longer] = predictor.segment(WIDE, [" ".join([*letters, *"xyz" * 100])])
    [shorter] = predictor.segment(WIDE, [" ".join(letters[:-1])])
    assert longer.mask_png == cut.mask_png
    assert scores_of(longer) == scores_of(cut) != scores_of(shorter)


def test_without_prompts_there_is_no_answer(predictor: Sam3Predictor) -> None:
    """But an image that cannot be read is told of."""
    assert predictor.segment(WIDE, []) == []
    assert predictor.segment_batch([]) == []
    with pytest.raises(UnreadableImage, match="not a PNG"):
        predictor.segment(b"GIF89a", [])


def test_one_broken_image_spoils_no_other(predictor: Sam3Predictor) -> None:
    """Each has its own answer or its own reason."""
    good, cut, other = predictor.segment_batch([(WIDE, ["a"]), (TALL[:300], ["a"]), (TALL, ["b"])])
    assert good == predictor.segment(WIDE, ["a"])
    assert isinstance(cut, UnreadableImage)
    assert str(cut) == "The image is damaged or incomplete."
    assert other == predictor.segment(TALL, ["b"])


def test_it_says_what_it_is(predictor: Sam3Predictor, load: Loaded) -> None:
    """Name, size, device and type of what runs; the version follows all that decides masks."""
    info = predictor.info()
    assert (info.model_name, info.device, info.dtype) == ("sam3", "cpu", "float32")
    assert 50_000 < info.parameters < 200_000
    assert info.weights_size_gb == pytest.approx(info.parameters * 4 / 1e9, abs=1e-3)
    assert info.model_version == predictor.model_version
    assert info.model_version.startswith("sam3-")
    assert load(threshold="0.25").model_version != load(threshold="0.5").model_version
    assert predictor.memory() is None
    assert not predictor.in_processes


def test_it_travels_without_its_weights(predictor: Sam3Predictor) -> None:
    """Pickled it is small, and says so where it is used before it is loaded again."""
    pickled = pickle.dumps(predictor)
    assert len(pickled) < 2000
    arrived: Sam3Predictor = pickle.loads(pickled)
    assert arrived.model_version == "sam3"
    with pytest.raises(RuntimeError, match="before it was loaded"):
        arrived.segment(WIDE, ["a"])
    arrived.load()
    arrived.load()
    assert arrived.segment(WIDE, ["a"]) == predictor.segment(WIDE, ["a"])
