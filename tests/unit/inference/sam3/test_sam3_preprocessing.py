"""
What the model is shown, against the formulas that transformers documents.

That the numbers are those of ``Sam3ImageProcessor`` to the last bit was seen with transformers 5.24 on
torchvision 0.29.1, which CI does not have: images of 1 x 1 to 3000 x 2000, squares of 56 and 1008.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from s3edge_inference.predictors import PredictorUnavailable


Read = Any

OURS = {"size": {"height": 28, "width": 28}}


@pytest.fixture
def read(libraries: None, tmp_path: Path) -> Read:
    """Return what reads the settings of a processor that a test writes down."""
    from s3edge_inference.sam3.preprocessing import Preprocessing  # noqa: PLC0415 - needs torch

    def of(config: Any, name: str = "preprocessor_config.json") -> Any:
        (tmp_path / name).write_text(json.dumps(config))
        return Preprocessing.read(tmp_path)

    return of


def shown(preprocessing: Any, image: Image.Image) -> Any:
    """Return what the model is shown, as an array."""
    return preprocessing.pixel_values(image).numpy()


def test_bytes_are_rescaled_and_normalised(read: Read) -> None:
    """(byte * rescale_factor - mean) / std for each channel: -1 to 1 by default."""
    preprocessing = read(OURS)
    for byte, expected in ((0, -1.0), (255, 1.0), (51, -0.6)):
        values = shown(preprocessing, Image.new("RGB", (28, 28), (byte, byte, byte)))
        assert (values.shape, values.dtype) == ((3, 28, 28), np.float32)
        assert values == pytest.approx(expected, abs=1e-6)


def test_each_channel_has_its_own_mean_and_deviation(read: Read) -> None:
    """ImageNet's, say, with a factor that is not 1/255."""
    mean, std, factor = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 1 / 200
    config = OURS | {"image_mean": mean, "image_std": std, "rescale_factor": factor}
    values = shown(read(config), Image.new("RGB", (9, 5), (10, 20, 30)))
    for channel, byte in enumerate((10, 20, 30)):
        expected = (byte * factor - mean[channel]) / std[channel]
        assert values[channel] == pytest.approx(expected, abs=1e-5)


def test_images_are_squeezed_as_pillow_would(read: Read) -> None:
    """Bilinear with antialiasing, proportions given up, rounded to bytes: Pillow's, but for one step."""
    pixels = np.random.default_rng(0).integers(0, 256, (90, 200, 3), np.uint8)
    image = Image.fromarray(pixels)
    theirs = np.asarray(image.resize((28, 28), Image.Resampling.BILINEAR)).astype(np.int64)
    ours = (shown(read(OURS), image).transpose(1, 2, 0) + 1) * 127.5
    assert ours == pytest.approx(ours.round(), abs=1e-3)
    assert np.abs(ours.round() - theirs).max() <= 1


def test_settings_are_found_in_both_files(read: Read) -> None:
    """Alone, as older versions of transformers write them, or among those of the whole processor."""
    assert (read({}).height, read({}).width) == (1008, 1008)
    nested = {"processor_class": "Sam3Processor", "image_processor": OURS}
    assert read(nested, "processor_config.json") == read(OURS)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"do_resize": False}, "do_resize"),
        ({"do_normalize": False, "do_rescale": False}, "do_rescale, do_normalize"),
        ({"do_pad": True}, "do_pad"),
        ({"do_center_crop": True}, "do_center_crop"),
        ({"resample": 3}, "resample"),
        ({"size": {"longest_edge": 1008}}, "cannot be read"),
        ({"image_mean": [0.5]}, "cannot be read"),
        ({"image_std": "half"}, "cannot be read"),
        ({"rescale_factor": None}, "cannot be read"),
    ],
)
def test_what_is_not_done_here_is_refused(read: Read, change: dict[str, Any], named: str) -> None:
    """Weights that want other images than SAM 3's would answer nonsense, without an error."""
    with pytest.raises(PredictorUnavailable, match=named) as refused:
        read(OURS | change)
    assert "\n" not in str(refused.value)
