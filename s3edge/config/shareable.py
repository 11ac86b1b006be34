"""Whether a process beside the gateway sees the gateway's images."""

from s3edge.config.build import STORAGE
from s3edge.config.settings import Settings, SettingsError


def check_shareable(settings: Settings) -> None:
    """
    Refuse a storage that only the gateway's own process, or nobody who is told no address, sees.

    Raises:
        SettingsError: Says what to set.
    """
    scheme = STORAGE.scheme(settings)
    if scheme == "memory":
        raise SettingsError(
            "S3EDGE_STORAGE: memory: is this process's own, and the gateway's images are needed here; set"
            " R2_ENDPOINT and the other R2_ names as the gateway has them"
        )
    if scheme == "file" and settings.public_url is None:
        raise SettingsError(
            "S3EDGE_STORAGE: set R2_ENDPOINT and the other R2_ names as the gateway has them; or, when"
            " the gateway's files are on this machine, S3EDGE_PUBLIC_URL to how it is reached"
        )
