"""Weights as the hub has them are loaded; whatever else is there is refused in one line."""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from s3edge_inference.predictors import PredictorOptions, PredictorUnavailable
from s3edge_inference.sam3.predictor import Sam3Predictor, from_options
from tests.unit.inference.sam3.conftest import Loaded
from tests.unit.inference.sam3.test_sam3_predictor import encoded


IMAGE = encoded(Image.linear_gradient("L").convert("RGB"))

TENSORS = "model.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def copied(weights: Path, tmp_path: Path) -> Path:
    """Return a folder of weights that the test may spoil."""
    return Path(shutil.copytree(weights, tmp_path / "copied"))


def refusal_of(action: Callable[[], object]) -> str:
    """Return what an operator reads."""
    with pytest.raises(PredictorUnavailable) as refused:
        action()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def edited(folder: Path, name: str, **changes: Any) -> None:
    """Change fields of a file of settings."""
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def tensors_of(folder: Path) -> dict[str, Any]:
    """Read all tensors of a folder."""
    from safetensors.torch import load_file  # noqa: PLC0415 - not installed everywhere

    return dict(load_file(folder / TENSORS))


def write_tensors(folder: Path, tensors: dict[str, Any], name: str = TENSORS) -> None:
    """Write a file of tensors."""
    from safetensors.torch import save_file  # noqa: PLC0415 - not installed everywhere

    save_file(tensors, folder / name, metadata={"format": "pt"})


def test_the_hubs_layout_is_understood(
    copied: Path, predictor: Sam3Predictor, load: Loaded
) -> None:
    """``facebook/sam3`` is the video model's: its detector is the model, its tracker is left alone."""
    import torch  # noqa: PLC0415 - not installed everywhere

    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(
        json.dumps({"model_type": "sam3_video", "detector_config": config, "tracker_config": {}})
    )
    tensors = {f"detector_model.{name}": tensor for name, tensor in tensors_of(copied).items()}
    tensors["tracker_model.memory"] = tensors["tracker_neck.layer"] = torch.zeros(3)
    write_tensors(copied, {name: tensor.clone() for name, tensor in tensors.items()})
    found = load(copied, threshold="0.000001")
    assert found.segment(IMAGE, ["a", "b"]) == predictor.segment(IMAGE, ["a", "b"])


def test_weights_in_several_files_are_one_model(
    copied: Path, predictor: Sam3Predictor, load: Loaded
) -> None:
    """As large models are stored; a file that is missing is named."""
    tensors = tensors_of(copied)
    files = {name: f"part-{index % 2}.safetensors" for index, name in enumerate(tensors)}
    for file in set(files.values()):
        write_tensors(
            copied, {name: tensors[name] for name in tensors if files[name] == file}, file
        )
    (copied / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))
    (copied / TENSORS).unlink()
    found = load(copied, threshold="0.000001")
    assert found.segment(IMAGE, ["a"]) == predictor.segment(IMAGE, ["a"])
    (copied / "part-1.safetensors").unlink()
    assert "part-1.safetensors is missing" in refusal_of(lambda: load(copied))


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("config.json", None, "config.json is missing"),
        ("config.json", "{", "config.json cannot be read"),
        ("config.json", "[]", "config.json is not an object"),
        ("config.json", '{"model_type": "sam2"}', "of a model 'sam2', not sam3"),
        (TENSORS, None, "model.safetensors is missing"),
        (TENSORS, "", "model.safetensors is damaged or incomplete"),
        (TENSORS, "version https://git-lfs", "model.safetensors is damaged or incomplete"),
        ("tokenizer.json", None, "tokenizer.json is missing"),
        ("processor_config.json", None, "processor_config.json is missing"),
    ],
)
def test_a_folder_that_lacks_something_is_refused_at_once(
    copied: Path, name: str, content: str | None, named: str
) -> None:
    """Before anything is loaded, and with the way to get what is missing."""
    if content is None:
        (copied / name).unlink()
    else:
        (copied / name).write_text(content)
    refusal = refusal_of(lambda: from_options(PredictorOptions(str(copied))))
    assert named in refusal
    assert str(copied) in refusal
    assert "hf download facebook/sam3" in refusal


def test_a_download_that_broke_off_is_refused_at_once(copied: Path) -> None:
    """Whatever is missing at the end."""
    whole = (copied / TENSORS).read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 100):
        (copied / TENSORS).write_bytes(whole[:length])
        refusal = refusal_of(lambda: from_options(PredictorOptions(str(copied))))
        assert "model.safetensors is damaged or incomplete" in refusal


def test_tensors_that_are_missing_are_not_made_up(copied: Path, load: Loaded) -> None:
    """The library fills them with random numbers and warns; the masks would be nonsense."""
    tensors = tensors_of(copied)
    kept = {name: tensors[name] for name in tensors if not name.startswith("text_encoder.")}
    write_tensors(copied, kept)
    refusal = refusal_of(lambda: load(copied))
    assert f"lack {len(tensors) - len(kept)} tensors of the model, text_encoder." in refusal


@pytest.mark.parametrize(
    "change",
    [
        {"mask_decoder_config": {"hidden_size": 32, "num_attention_heads": 2}},
        {"vision_config": {"fpn_hidden_size": "wide"}},
        {"detr_encoder_config": 7},
    ],
    ids=["another size", "another type", "no part"],
)
def test_settings_that_do_not_fit_the_tensors_are_refused(
    copied: Path, load: Loaded, change: dict[str, Any]
) -> None:
    """Those of a model of another size, or of none."""
    edited(copied, "config.json", **change)
    assert "cannot be loaded" in refusal_of(lambda: load(copied))


def test_code_beside_the_weights_is_not_run(copied: Path, tmp_path: Path, load: Loaded) -> None:
    """A tokenizer of another class than transformers has is refused, and nobody is asked."""
    proof = tmp_path / "ran"
    (copied / "evil.py").write_text(f"open({str(proof)!r}, 'w')\nclass Evil: ...\n")
    evil = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    edited(copied, "tokenizer_config.json", tokenizer_class="Evil", auto_map=evil)
    with contextlib.suppress(PredictorUnavailable):
        load(copied)
    assert not proof.exists()


def test_an_image_processor_of_another_size_is_refused(copied: Path, load: Loaded) -> None:
    """Positions in the model are made for one size."""
    square = {"height": 70, "width": 70}
    (copied / "processor_config.json").write_text(json.dumps({"image_processor": {"size": square}}))
    assert "gives 70 x 70 pixels, and the model wants 56" in refusal_of(lambda: load(copied))


@pytest.mark.parametrize("device", ["cuda:63", "tpu", "cpu:x", "meta", "xpu"])
def test_a_device_that_is_not_there_is_refused(load: Loaded, device: str) -> None:
    """With what PyTorch it is that does not see it."""
    refusal = refusal_of(lambda: load(device=device))
    assert refusal.startswith("S3EDGE_MODEL_DEVICE: ")
    assert device in refusal


def test_the_best_device_is_taken_by_default(load: Loaded) -> None:
    """A GPU if PyTorch sees one, with half the digits if it computes with them; else the CPU."""
    import torch  # noqa: PLC0415 - not installed everywhere

    info = load(device="").info()
    if torch.cuda.is_available():
        assert info.device == "cuda"
    else:
        assert (info.device, info.dtype) == ("cpu", "float32")


@pytest.mark.parametrize("threshold", ["half", "1.5", "-0.1", "0", "1", "nan", "0.5%"])
def test_a_threshold_is_a_number_between_0_and_1(weights: Path, threshold: str) -> None:
    """Anything else is refused before anything is loaded."""
    options = PredictorOptions(str(weights), vendor={"SAM3_THRESHOLD": threshold})
    assert refusal_of(lambda: from_options(options)).startswith("SAM3_THRESHOLD: write a number")


@pytest.mark.parametrize("dtype", ["int8", "float64", "half", "torch.float32"])
def test_a_type_is_one_that_sam3_runs_in(weights: Path, dtype: str) -> None:
    """The refusal says which there are."""
    refusal = refusal_of(lambda: from_options(PredictorOptions(str(weights), dtype=dtype)))
    assert refusal == "S3EDGE_MODEL_DTYPE: write one of bfloat16, float32, float16"


@pytest.mark.parametrize("text", ["", "/nowhere/at/all", "./sam3", "~xyzzy/sam3", "sam3", "a/b/c"])
def test_weights_that_are_nowhere_are_refused_at_once(libraries: None, text: str) -> None:
    """With where to get them and what to set; nothing is looked for on the hub."""
    refusal = refusal_of(lambda: from_options(PredictorOptions(text)))
    assert "https://huggingface.co/facebook/sam3" in refusal
    assert "S3EDGE_MODEL_WEIGHTS" in refusal
