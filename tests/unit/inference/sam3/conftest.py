"""
A SAM 3 with random weights and few of them, in a folder as the hub has the real one.

Its classes are the real ones, so is all code that loads and runs it; 0.1 million parameters take
milliseconds where the real 840 million take seconds.
"""

import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from s3edge_inference.predictors import PredictorOptions
from s3edge_inference.sam3.predictor import Sam3Predictor, from_options


REQUIRED = "CI_REQUIRES_SAM3"
"""Set to anything in the environment, it forbids to go without the libraries."""

SIDE = 56
"""Pixels of the square that the tiny model looks at."""

WIDTH = 16

Loaded = Callable[..., Sam3Predictor]


@pytest.fixture(scope="session")
def libraries() -> None:
    """Skip what needs SAM 3's libraries where they are not, or fail it where they are required."""
    if all(find_spec(name) for name in ("torch", "transformers")):
        return
    advice = "torch and transformers are not installed; pip install 's3edge[sam3]'"
    if os.environ.get(REQUIRED):
        pytest.fail(f"{advice}; or unset {REQUIRED} to skip what needs them", pytrace=False)
    pytest.skip(advice)


@pytest.fixture(scope="session")
def weights(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of weights that nobody changes."""
    import torch  # noqa: PLC0415 - not installed everywhere
    from transformers import CLIPTokenizer, Sam3Config, Sam3Model  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("sam3")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Sam3Model(Sam3Config(**PARTS)).eval()
        # As they come, random weights answer much the same to every image and every prompt.
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
            elif name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    CLIPTokenizer(vocab=VOCABULARY).save_pretrained(folder)
    square = {"height": SIDE, "width": SIDE}
    processor = {"image_processor_type": "Sam3ImageProcessor", "size": square}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": processor}))
    return folder


@pytest.fixture(scope="session")
def load(weights: Path) -> Loaded:
    """Return what loads the tiny model, or one in another folder, as settings say."""

    def loaded(folder: Path = weights, threshold: str = "0.5", **options: str) -> Sam3Predictor:
        vendor = {"SAM3_THRESHOLD": threshold}
        settings = {"device": "cpu"} | options
        predictor = from_options(PredictorOptions(str(folder), **settings, vendor=vendor))
        predictor.load()
        return predictor

    return loaded


@pytest.fixture(scope="session")
def predictor(load: Loaded) -> Sam3Predictor:
    """Return the tiny model, loaded, to which everything is an instance."""
    return load(threshold="0.000001")


VOCABULARY = {
    "<|startoftext|>": 0,
    "<|endoftext|>": 1,
    **{f"{letter}</w>": 2 + index for index, letter in enumerate("abcdefghijklmnopqrstuvwxyz")},
}
"""Letters that stand alone; whatever else is in a prompt is an unknown word."""

_SMALL = {"num_attention_heads": 2, "intermediate_size": 32}

PARTS = {
    "vision_config": {
        "backbone_config": {
            "model_type": "sam3_vit_model",
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "image_size": SIDE,
            "patch_size": 14,
            "pretrain_image_size": 28,
            "window_size": 2,
            "global_attn_indexes": [1],
            **_SMALL,
        },
        "fpn_hidden_size": WIDTH,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    },
    "text_config": {
        "model_type": "clip_text_model",
        "vocab_size": 64,
        "hidden_size": 32,
        "projection_dim": WIDTH,
        "num_hidden_layers": 1,
        "max_position_embeddings": 32,
        "bos_token_id": 0,
        "eos_token_id": 1,
        **_SMALL,
    },
    "geometry_encoder_config": {"hidden_size": WIDTH, "num_layers": 1, **_SMALL},
    "detr_encoder_config": {"hidden_size": WIDTH, "num_layers": 1, **_SMALL},
    "detr_decoder_config": {"hidden_size": WIDTH, "num_layers": 1, "num_queries": 5, **_SMALL},
    "mask_decoder_config": {"hidden_size": WIDTH, "num_attention_heads": 2},
}
