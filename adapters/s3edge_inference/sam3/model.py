"""
SAM 3 in memory: images become embeddings, embeddings and prompts become the model's raw outputs.

Source: transformers 5.24, ``models/sam3``: ``Sam3Model.get_vision_features`` and ``forward``, and
``Sam3Processor.__call__`` for how prompts are tokenised.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from transformers import AutoTokenizer, Sam3Config, Sam3Model
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput
from transformers.utils.logging import disable_progress_bar

from s3edge_inference.predictors import PredictorUnavailable
from s3edge_inference.sam3.preprocessing import Preprocessing


MAX_PROMPT_TOKENS = 32
"""What the text encoder was trained with; of a longer prompt the rest is not read."""

PROMPTS_AT_ONCE = 4
"""Prompts of one image that are answered together; in float32 each takes 0.3 GB of memory meanwhile."""

_DEVICES = ("cpu", "cuda", "mps")


@attrs.frozen(eq=False)
class Embedding:
    """
    What the vision encoder made of one image; every prompt is answered from it.

    Attributes:
        features: Of each scale, ``(1, channels, rows, columns)``, the finest first.
        positions: Encodings of the places, of the same shapes.
    """

    features: tuple[torch.Tensor, ...]
    positions: tuple[torch.Tensor, ...]


@attrs.frozen(eq=False)
class RawAnswer:
    """
    What the model says to one prompt, of each of its queries; all in float32.

    Attributes:
        scores: 0 to 1, ``(queries,)``: that the query is an instance of what the prompt names.
        boxes: Left, top, right and bottom as fractions of the image, ``(queries, 4)``.
        masks: 0 to 1, ``(queries, rows, columns)``, of the whole image at the model's own resolution.
    """

    scores: torch.Tensor
    boxes: torch.Tensor
    masks: torch.Tensor


@attrs.frozen(eq=False)
class LoadedModel:
    """
    The model with what belongs to it.

    Attributes:
        model: On its device, in its type, for inference.
        tokenizer: Of the text encoder.
        preprocessing: What images go through first.
        device: Where it is.
    """

    model: Any
    tokenizer: Any
    preprocessing: Preprocessing
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    def embed(self, pixel_values: Sequence[torch.Tensor]) -> list[Embedding]:
        """
        Encode images, all of them in one run of the vision encoder.

        Args:
            pixel_values: What ``Preprocessing`` made of each.
        """
        batch = torch.stack(list(pixel_values)).to(self.device, self.dtype)
        with torch.inference_mode():
            encoded = self.model.get_vision_features(batch)
        return [
            Embedding(
                tuple(level[index : index + 1] for level in encoded.fpn_hidden_states),
                tuple(level[index : index + 1] for level in encoded.fpn_position_encoding),
            )
            for index in range(len(pixel_values))
        ]

    def answer(self, embedding: Embedding, prompts: Sequence[str]) -> Iterator[RawAnswer]:
        """
        Answer prompts about an image that was encoded, in their order, a few at a time.

        Raises:
            FloatingPointError: The model overflowed, which float16 may do.
        """
        for first in range(0, len(prompts), PROMPTS_AT_ONCE):
            yield from self._answer(embedding, list(prompts[first : first + PROMPTS_AT_ONCE]))

    def _answer(self, embedding: Embedding, prompts: list[str]) -> list[RawAnswer]:
        # Always padded to the same length: a prompt's answer does not depend on its neighbours'.
        tokens = self.tokenizer(
            prompts,
            padding="max_length",
            truncation=True,
            max_length=MAX_PROMPT_TOKENS,
            return_tensors="pt",
        ).to(self.device)
        with torch.inference_mode():
            outputs = self.model(
                vision_embeds=_repeated(embedding, len(prompts)),
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
            )
            # An image may show what the prompt names in several places, or nowhere: the presence
            # says whether it does, and each query whether it found one.
            scores = (
                outputs.pred_logits.float().sigmoid() * outputs.presence_logits.float().sigmoid()
            )
            if not scores.isfinite().all():
                raise FloatingPointError(
                    f"SAM 3 overflowed in {self.dtype}; use bfloat16 or float32 (S3EDGE_MODEL_DTYPE)"
                )
            boxes, masks = outputs.pred_boxes.float(), outputs.pred_masks.float().sigmoid()
        return [
            RawAnswer(scores[index], boxes[index], masks[index]) for index in range(len(prompts))
        ]


def _repeated(embedding: Embedding, times: int) -> Any:
    # As views: an image's embedding takes no more memory for ten prompts than for one.
    return Sam3VisionEncoderOutput(
        fpn_hidden_states=tuple(level.expand(times, -1, -1, -1) for level in embedding.features),
        fpn_position_encoding=tuple(
            level.expand(times, -1, -1, -1) for level in embedding.positions
        ),
    )


def load(folder: Path, device_name: str, dtype_name: str) -> LoadedModel:
    """
    Load the model from a folder that was examined.

    Args:
        folder: Of the weights; nothing is downloaded.
        device_name: ``cuda``, ``cuda:1``, ``cpu``, ``mps``, or empty for a GPU if there is one.
        dtype_name: Of the weights in memory, or empty for the best on that device.

    Raises:
        PredictorUnavailable: No such device, no such type there, no room, or no weights of this model.
    """
    device = _device(device_name)
    dtype = _dtype(dtype_name, device)
    preprocessing = Preprocessing.read(folder)
    # A log is no place for bars.
    disable_progress_bar()
    try:
        model, report = Sam3Model.from_pretrained(
            folder,
            config=_config(folder),
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
        # Code that lies beside the weights is never run, nor is anybody asked whether to.
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        # Of files that are not as they should be, each library has errors of its own.
        raise PredictorUnavailable(
            f"the weights in {folder} cannot be loaded ({_one_line(error)}); download them again"
        ) from error
    _check_complete(report, folder)
    size = model.config.image_size
    if (preprocessing.height, preprocessing.width) != _pair(size):
        raise PredictorUnavailable(
            f"the image processor in {folder} gives {preprocessing.width} x {preprocessing.height}"
            f" pixels, and the model wants {size}; take both from one release"
        )
    try:
        model = model.to(device).eval()
    except torch.OutOfMemoryError as error:
        needed_gb = sum(tensor.nbytes for tensor in model.parameters()) / 1e9
        raise PredictorUnavailable(
            f"{device} has no room for {needed_gb:.1f} GB of weights; free its memory, or set"
            " S3EDGE_MODEL_DTYPE=bfloat16 or another S3EDGE_MODEL_DEVICE"
        ) from error
    return LoadedModel(model, tokenizer, preprocessing, device)


def _config(folder: Path) -> Sam3Config:
    """Return the model's own part of a configuration that may be the whole video model's."""
    content, _ = Sam3Config.get_config_dict(folder, local_files_only=True)
    return Sam3Config.from_dict(content.get("detector_config", content))


def _check_complete(report: dict[str, Any], folder: Path) -> None:
    # Tensors that a file lacks are filled with random numbers, and the model answers nonsense.
    lacking = sorted(str(name) for name in report["missing_keys"])
    if lacking:
        raise PredictorUnavailable(
            f"the weights in {folder} lack {len(lacking)} tensors of the model, {lacking[0]} first: they"
            " are of another version than transformers; take their newest release and the newest"
            " transformers 5"
        )


def _device(name: str) -> torch.device:
    if not name:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in _DEVICES:
        raise PredictorUnavailable(
            f"S3EDGE_MODEL_DEVICE: {name!r} is no device; write one of cuda, cuda:1, mps or cpu"
        )
    if not _is_there(device):
        raise PredictorUnavailable(
            f"S3EDGE_MODEL_DEVICE: PyTorch {torch.__version__} sees no {name}; install the driver and a"
            " PyTorch built for it, or leave this unset to use what there is"
        )
    return device


def _is_there(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool((device.index or 0) < torch.cuda.device_count())
    return device.type == "cpu" or bool(torch.backends.mps.is_available())


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name:
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    # GPUs before Ampere compute bfloat16 by way of float32.
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
