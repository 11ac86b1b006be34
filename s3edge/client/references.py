"""How the API names an image that is there already, and what is no such name."""

import inspect
from typing import TypeAlias
from uuid import UUID

from s3edge.client.errors import InvalidRequest
from s3edge.client.models import UploadedImage
from s3edge.errors import Detail


ImageReference: TypeAlias = UploadedImage | UUID | str
"""What ``upload`` returned, or its id or URL."""

_UPLOAD = "if it is a file, upload it first: client.segment(client.upload(file), ...)"


def reference_of(image: object) -> dict[str, str]:
    """
    Return an image as the API names it: by its id, or by a URL of it.

    Args:
        image: An ``ImageReference``, if it is none of what is easily given in its place.

    Raises:
        InvalidRequest: It is neither, and nobody need be asked.
    """
    if isinstance(image, UploadedImage):
        return {"image_id": str(image.image_id)}
    if isinstance(image, UUID):
        return {"image_id": str(image)}
    if isinstance(image, str):
        return _named(image)
    if inspect.iscoroutine(image):
        # It has not begun and never will: Python's warning of that would hide what is said here.
        image.close()
    if inspect.isawaitable(image):
        raise _invalid(
            f"image is a {type(image).__name__}; await it first:"
            " client.segment(await client.upload(...), ...)"
        )
    raise _invalid(f"image is a {type(image).__name__}; {_UPLOAD}")


def _named(name: str) -> dict[str, str]:
    if name.lower().startswith(("http://", "https://")):
        return {"image_url": name}
    try:
        return {"image_id": str(UUID(name))}
    except ValueError:
        # A path, most likely. It is not shown: a URL of another kind may be signed.
        raise _invalid(
            f"image is text that is neither an id nor an http(s) URL; {_UPLOAD}"
        ) from None


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, details=[Detail("image", message)])
