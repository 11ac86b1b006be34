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


def reference_of(image: ImageReference) -> dict[str, str]:
    """
    Return an image as the API names it: by its id, or by a URL of it.

    Raises:
        InvalidRequest: It is neither, and nobody need be asked.
    """
    given: object = image
    if isinstance(given, UploadedImage):
        return {"image_id": str(given.image_id)}
    if isinstance(given, UUID):
        return {"image_id": str(given)}
    if isinstance(given, str):
        return _named(given)
    if inspect.iscoroutine(given):
        # It has not begun and never will: Python's warning of that would hide what is said here.
        given.close()
    if inspect.isawaitable(given):
        raise _invalid(
            f"image is a {type(given).__name__}; await it first:"
            " client.segment(await client.upload(...), ...)"
        )
    raise _invalid(f"image is a {type(given).__name__}; {_UPLOAD}")


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
