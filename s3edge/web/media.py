"""Serves objects of a storage that cannot serve them itself, by signed URLs that expire."""

from collections.abc import AsyncIterator
from urllib.parse import parse_qs

from s3edge.errors import Code, EdgeError
from s3edge.ports import Clock, ObjectStorage
from s3edge.rules.media_urls import MEDIA_PATH, MediaUrls
from s3edge.web.http import Call, Response, Route


def media_route(storage: ObjectStorage, urls: MediaUrls, clock: Clock) -> Route:
    """Return the route that answers the URLs that ``urls`` makes for objects of ``storage``."""

    async def media(call: Call) -> Response:
        key = call.request.path_params["key"]
        query = {name: values[-1] for name, values in parse_qs(call.request.query).items()}
        left_s = urls.seconds_left(
            key, query.get("expires", ""), query.get("signature", ""), clock.now()
        )
        found = await storage.head(key) if left_s > 0 else None
        if found is None:
            # A bad signature, an expired one and an absent object look alike.
            raise EdgeError(Code.NOT_FOUND, "There is nothing at this URL, or it has expired.")
        return Response(
            200,
            [
                ("content-type", found.content_type),
                ("content-length", str(found.size_bytes)),
                ("cache-control", f"private, max-age={left_s}, immutable"),
                # What a user uploaded is shown as that image or not at all, never run.
                ("x-content-type-options", "nosniff"),
                ("content-security-policy", "default-src 'none'; sandbox"),
            ],
            b"" if call.request.method == "HEAD" else _started(storage, key),
        )

    return Route(
        "GET",
        MEDIA_PATH + "{key:path}",
        media,
        "media",
        summary="Read an image or a mask by its signed URL",
        limits_anonymous=False,
    )


async def _started(storage: ObjectStorage, key: str) -> AsyncIterator[bytes]:
    async for chunk in storage.open(key):
        yield chunk
