"""
Lets browsers of other origins call the API.

Rules: the Fetch standard's CORS protocol, https://fetch.spec.whatwg.org/#http-cors-protocol. Tokens
travel in a header, never in a cookie, so credentials are not allowed and ``*`` is safe.
"""

from collections.abc import Collection, Iterable, Sequence

from attrs import frozen

from s3edge.web.http import Request, Response


ANY_ORIGIN = "*"

PREFLIGHT_MAX_AGE_S = 600

_ALLOWED_HEADERS = "Authorization, Content-Type, Idempotency-Key, X-Request-Id"
_EXPOSED_HEADERS = (
    "Idempotent-Replayed, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id"
)


@frozen
class CorsPolicy:
    """
    Which origins may call.

    Attributes:
        origins: Their names (``https://app.example``), or ``*`` among them for all.
    """

    origins: Collection[str] = (ANY_ORIGIN,)

    def headers_for(self, request: Request) -> Sequence[tuple[str, str]]:
        """Return the headers that any answer to this request carries."""
        origin = request.headers.get("origin")
        if ANY_ORIGIN in self.origins:
            if origin is None:
                return ()
            allowed = ANY_ORIGIN
            vary: list[tuple[str, str]] = []
        else:
            # Caches must not hand one origin's answer to another, so also when it is refused.
            vary = [("vary", "Origin")]
            if origin is None or origin not in self.origins:
                return vary
            allowed = origin
        return [
            ("access-control-allow-origin", allowed),
            ("access-control-expose-headers", _EXPOSED_HEADERS),
            *vary,
        ]

    def preflight(self, methods: Iterable[str]) -> Response:
        """Return the answer to a browser that asks before it sends the request."""
        return Response(
            204,
            [
                ("access-control-allow-methods", ", ".join(methods)),
                ("access-control-allow-headers", _ALLOWED_HEADERS),
                ("access-control-max-age", str(PREFLIGHT_MAX_AGE_S)),
            ],
        )


def is_preflight(request: Request) -> bool:
    """Return whether a browser only asks what it may send."""
    return (
        request.method == "OPTIONS"
        and "origin" in request.headers
        and "access-control-request-method" in request.headers
    )
