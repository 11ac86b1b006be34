"""
Where the weights of SAM 3 are, and whether they are whole.

Weights are a folder as ``save_pretrained`` writes it and as the hub has it in ``facebook/sam3``:
``config.json``, safetensors, the tokenizer's files and the image processor's. What can be told without
loading is told here, so that a server ends at once and not after half a minute.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from s3edge_inference.predictors import PredictorUnavailable


HUB_NAME = "facebook/sam3"

WHERE_TO_GET_THEM = (
    f"accept the licence at https://huggingface.co/{HUB_NAME}, then run"
    f" 'hf auth login' and 'hf download {HUB_NAME} --exclude sam3.pt --local-dir sam3' and set"
    " S3EDGE_MODEL_WEIGHTS=./sam3"
)

FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "preprocessor_config.json",
    "processor_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
"""What is read; the hub keeps the original's checkpoint beside it, of the same size again."""

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))

MODEL_TYPES = ("sam3", "sam3_video")
"""The second is what ``facebook/sam3`` says it is: the model of images is that of videos' detector."""

_HUB_NAME = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?")


@attrs.frozen
class HubWeights:
    """
    Weights on the hub.

    Attributes:
        repository: Owner and name.
        revision: A branch, a tag or a commit; ``None`` for the newest.
    """

    repository: str
    revision: str | None = None


def find(text: str) -> Path | HubWeights:
    """
    Return what ``S3EDGE_MODEL_WEIGHTS`` means: a folder that was examined, or a name on the hub.

    Args:
        text: A folder, ``owner/name`` or ``owner/name@revision``.

    Raises:
        PredictorUnavailable: It is unset, neither of them, or not a folder of whole weights.
    """
    if not text:
        raise PredictorUnavailable(f"sam3 has no weights; {WHERE_TO_GET_THEM}")
    folder = Path(os.path.expanduser(text))  # noqa: PTH111 - Path's raises where nobody has that name
    named = _HUB_NAME.fullmatch(text)
    if folder.is_dir() or named is None or text.startswith("."):
        examine(folder)
        return folder
    return HubWeights(named["repository"], named["revision"])


def examine(folder: Path) -> None:
    """
    Check that a folder holds whole weights of SAM 3; the tensors themselves are not read.

    Raises:
        PredictorUnavailable: Says what is missing.
    """
    if not folder.is_dir():
        raise _useless(folder, "there is no such folder")
    config = _json(folder, "config.json")
    if config.get("model_type") not in MODEL_TYPES:
        raise _useless(folder, f"config.json is of a model {config.get('model_type')!r}, not sam3")
    if not any((folder / name).is_file() for name in _PROCESSORS):
        raise _useless(folder, f"{_PROCESSORS[0]} is missing")
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZERS):
        raise _useless(folder, f"{_TOKENIZERS[0][0]} is missing")
    for path in tensor_files(folder):
        _examine_tensors(folder, path)


def processor_config(folder: Path) -> Mapping[str, Any]:
    """
    Return the settings of the image processor, from whichever file holds them.

    Raises:
        PredictorUnavailable: There is none, or it cannot be read.
    """
    for name in _PROCESSORS:
        if (folder / name).is_file():
            config = _json(folder, name)
            # Newer versions of transformers keep all parts of a processor in one file.
            nested = config.get("image_processor", config)
            if isinstance(nested, dict):
                return nested
    raise _useless(folder, "it has no settings of an image processor")


def tensor_files(folder: Path) -> list[Path]:
    """
    Return the files that hold the tensors, in order of their names.

    Raises:
        PredictorUnavailable: One is missing.
    """
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    if not (folder / _INDEX).is_file():
        raise _useless(folder, f"{_SINGLE} is missing")
    shards = _json(folder, _INDEX).get("weight_map")
    names = sorted({str(name) for name in shards.values()}) if isinstance(shards, dict) else []
    for name in names:
        if not (folder / name).is_file():
            raise _useless(folder, f"{name} is missing")
    return [folder / name for name in names]


def _examine_tensors(folder: Path, path: Path) -> None:
    # It brings a library with it, which a gateway does not have.
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        # Opening reads the header, and compares the file's length with what it announces.
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise _useless(folder, f"{path.name} is damaged or incomplete") from error


def _json(folder: Path, name: str) -> Mapping[str, Any]:
    try:
        content = json.loads((folder / name).read_bytes())
    except FileNotFoundError:
        raise _useless(folder, f"{name} is missing") from None
    except (OSError, ValueError) as error:
        raise _useless(folder, f"{name} cannot be read") from error
    if not isinstance(content, dict):
        raise _useless(folder, f"{name} is not an object")
    return content


def _useless(folder: Path, reason: str) -> PredictorUnavailable:
    return PredictorUnavailable(f"no weights of SAM 3 in {folder}: {reason}; {WHERE_TO_GET_THEM}")
