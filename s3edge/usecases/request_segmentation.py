"""Take a credit for a segmentation and record its task."""

import hashlib
from collections.abc import Callable, Collection
from uuid import UUID

import msgspec
from attrs import frozen

from s3edge.errors import Code, EdgeError, invalid
from s3edge.ports import Database, Ids, ObjectStorage
from s3edge.rules.image_hosts import is_allowed_host
from s3edge.rules.keys import is_upload_of, unsigned, upload_key
from s3edge.rules.prompts import clean_prompt
from s3edge.values import NewTask, Reservation, User


MAX_URL_CHARACTERS = 2048


@frozen
class SegmentationRequest:
    """
    What a user asks for.

    Attributes:
        text_prompt: What to segment, as it was typed.
        image_url: The uploaded image's URL; exactly one of this and ``image_id`` is given.
        image_id: The uploaded image's id.
        project_id: The user's own project, or ``None``.
        idempotency_key: The client's key for this request, or ``None``.
    """

    text_prompt: str
    image_url: str | None = None
    image_id: UUID | None = None
    project_id: UUID | None = None
    idempotency_key: str | None = None


async def request_segmentation(
    user: User,
    request: SegmentationRequest,
    *,
    database: Database,
    storage: ObjectStorage,
    ids: Ids,
    disown: Callable[[UUID], None],
    image_hosts: Collection[str] = (),
) -> Reservation:
    """
    Check a request, take its credit and record its task, all or nothing.

    A database that does not answer may have done it all the same. A repeat with the same idempotency
    key finds that out; without a key nobody can, so the task is disowned.

    Args:
        user: Who asks.
        request: What for.
        database: Takes the credit and keeps the task.
        storage: Knows the user's images.
        ids: Makes the task's id.
        disown: Has a task taken back if it turns out to exist.
        image_hosts: Further hosts whose images the operator allows.

    Raises:
        EdgeError: ``INVALID_REQUEST``, ``NOT_FOUND`` (an image that was never uploaded),
            ``INSUFFICIENT_CREDITS``, ``IDEMPOTENCY_KEY_REUSED``, ``SERVICE_UNAVAILABLE``.
    """
    prompt = clean_prompt(request.text_prompt)
    image = await _image(user, request, storage, image_hosts)
    new = NewTask(
        id=ids.new(),
        source_image_url=image.url,
        text_prompt=prompt,
        project_id=request.project_id,
        idempotency_key=request.idempotency_key,
        request_hash=_hash(image.name, prompt, request.project_id),
    )
    try:
        return await database.reserve_task(user, new)
    except EdgeError as error:
        if error.code is Code.SERVICE_UNAVAILABLE and new.idempotency_key is None:
            disown(new.id)
        raise


def image_key(user_id: UUID, image_url: str, storage: ObjectStorage) -> str | None:
    """Return the key of an image URL that storage made for this user, or ``None``."""
    key = storage.key_of(image_url)
    return key if key is not None and is_upload_of(user_id, key) else None


@frozen
class _Image:
    """
    The image that is meant.

    Attributes:
        url: Where it is, without any signature.
        name: What it is whatever the address: a repeat may come through another server's.
    """

    url: str
    name: str


async def _image(
    user: User,
    request: SegmentationRequest,
    storage: ObjectStorage,
    image_hosts: Collection[str],
) -> _Image:
    """Return the image, having seen that it exists."""
    if (request.image_url is None) == (request.image_id is None):
        raise invalid("image_url", "Send exactly one of image_url and image_id.")
    if request.image_id is not None:
        key: str | None = upload_key(user.user_id, request.image_id)
    else:
        url = request.image_url or ""
        if len(url) > MAX_URL_CHARACTERS:
            raise invalid("image_url", f"Use at most {MAX_URL_CHARACTERS} characters.")
        key = image_key(user.user_id, url, storage)
        if key is None:
            if is_allowed_host(url, image_hosts):
                return _Image(url, url)
            raise invalid("image_url", "Send the image_url that your own upload returned.")
    if key is None or await storage.head(key) is None:
        raise EdgeError(Code.NOT_FOUND, "There is no such image; upload it first.")
    return _Image(unsigned(storage.url_for(key)), key)


def _hash(image: str, prompt: str, project_id: UUID | None) -> str:
    """Return the fingerprint that tells a repeated request from a reused key."""
    return hashlib.sha256(msgspec.json.encode([image, prompt, project_id])).hexdigest()
