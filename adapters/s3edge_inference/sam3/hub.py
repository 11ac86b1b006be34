"""
Weights from the hub: brought into its local cache, once.

The hub's client reads its settings from the environment when it is imported. Ours may stand in a file
of settings, so they are handed over.
"""

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from s3edge_inference.predictors import PredictorUnavailable
from s3edge_inference.sam3.weights import FILES, HubWeights, examine


_YES = frozenset({"1", "on", "yes", "true"})


def fetch(weights: HubWeights, vendor: Mapping[str, str]) -> Path:
    """
    Return the folder in the hub's cache that holds the weights; download what is not there.

    Args:
        weights: Which.
        vendor: ``HF_TOKEN``, ``HF_HUB_OFFLINE``, ``HF_HOME``, ``HF_HUB_CACHE`` and ``HF_ENDPOINT`` mean
            what they mean to the hub's client.

    Raises:
        PredictorUnavailable: They cannot be had; says what to do.
    """
    name = f"{weights.repository}@{weights.revision}" if weights.revision else weights.repository
    offline = vendor.get("HF_HUB_OFFLINE", "").lower() in _YES
    try:
        folder = Path(
            snapshot_download(
                weights.repository,
                revision=weights.revision,
                cache_dir=_cache(vendor),
                token=vendor.get("HF_TOKEN") or None,
                endpoint=vendor.get("HF_ENDPOINT") or None,
                local_files_only=offline,
                allow_patterns=list(FILES),
            )
        )
    except GatedRepoError as error:
        raise PredictorUnavailable(
            f"the hub gives {name} only to those who accepted its licence: do so at"
            f" https://huggingface.co/{weights.repository}, and set HF_TOKEN to that account's token"
        ) from error
    except RevisionNotFoundError as error:
        raise PredictorUnavailable(
            f"the hub has no such revision: {name}; correct S3EDGE_MODEL_WEIGHTS"
        ) from error
    except RepositoryNotFoundError as error:
        raise PredictorUnavailable(
            f"there is no folder {name}, and the hub shows no such repository with this HF_TOKEN;"
            " correct S3EDGE_MODEL_WEIGHTS"
        ) from error
    except Exception as error:
        # The client lets errors of its HTTP library and of the file system through as they are.
        raise PredictorUnavailable(
            f"there is no folder {name}, and it cannot be had from the hub:"
            f" {_reason(error, offline=offline)}; run 'hf download {weights.repository} --exclude"
            " sam3.pt --local-dir sam3' where it can, and set S3EDGE_MODEL_WEIGHTS to the folder"
        ) from error
    examine(folder)
    return folder


def _cache(vendor: Mapping[str, str]) -> Path | None:
    if cache := vendor.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    if home := vendor.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    return None


def _reason(error: Exception, *, offline: bool) -> str:
    answered = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    if offline:
        return "HF_HUB_OFFLINE is set, and its cache does not have it"
    if isinstance(answered, HfHubHTTPError):
        return f"it answers {answered.response.status_code}"
    if isinstance(error, LocalEntryNotFoundError):
        return "it cannot be reached"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
