"""What a request asks for, apart from the table or function."""

from collections.abc import Mapping
from urllib.parse import unquote

from attrs import field, frozen
from starlette.requests import Request

from s3edge.testing.standins.supabase.preferences import Preferences, parse_preferences
from s3edge.testing.standins.supabase.query_string import parse_query
from s3edge.testing.standins.supabase.query_values import Query
from s3edge.testing.standins.supabase.ranges import Range, wanted_range
from s3edge.testing.standins.supabase.refusals import Refusal, not_done


SCHEMA = "public"
"""The schema that is exposed."""

JSON = "application/json"
SINGLE = "application/vnd.pgrst.object+json"

# Media types that PostgREST serves and this stand-in does not.
_NOT_DONE = (
    "text/csv",
    "application/geo+json",
    "application/openapi+json",
    "application/vnd.pgrst.plan",
    "application/vnd.pgrst.array+json",
    "application/octet-stream",
    "text/plain",
    "text/xml",
)


@frozen
class Asked:
    """
    A request, read.

    Attributes:
        method: Its method.
        path: Its path below ``/rest/v1``.
        headers: By name in lower case; they hold keys and tokens.
        cookies: By name.
        body: As it was sent.
        query: What its query string says.
        preferences: What its ``Prefer`` headers say.
        page: The stretch of rows that it wants.
        single: Whether it wants one object instead of an array.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    cookies: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    query: Query
    preferences: Preferences
    page: Range
    single: bool

    @property
    def writes_nothing(self) -> bool:
        """Whether its method only reads."""
        return self.method in {"GET", "HEAD"}

    @property
    def content_type(self) -> str:
        """Of its body; empty without."""
        return self.headers.get("content-type", "")


async def read_request(request: Request, path: str) -> Asked:
    """
    Read a request.

    Raises:
        Refusal: A part of it is malformed or asks for what cannot be had.
    """
    method = request.method
    _check_schema(request)
    single = _wants_single(request.headers.get("accept", "*/*"))
    reads = method in {"GET", "HEAD"}
    raw_query = _without_api_key(request.scope["query_string"].decode("latin-1"))
    query = parse_query(raw_query, takes_arguments=reads and path.startswith("/rpc/"))
    header = request.headers.get("range") if method == "GET" else None
    return Asked(
        method=method,
        path=unquote(path),
        headers={name: value for name, value in request.headers.items() if name != "cookie"},
        cookies=request.cookies,
        body=await request.body(),
        query=query,
        preferences=parse_preferences(request.headers.getlist("prefer")),
        page=wanted_range(query, header),
        single=single,
    )


def _check_schema(request: Request) -> None:
    reads = request.method in {"GET", "HEAD"}
    schema = request.headers.get("accept-profile" if reads else "content-profile", SCHEMA)
    if schema != SCHEMA:
        raise Refusal(
            406,
            "PGRST106",
            f"Invalid schema: {schema}",
            hint=f"Only the following schemas are exposed: {SCHEMA}",
        )


def _wants_single(accept: str) -> bool:
    """Return whether one object is wanted, by the first media type that can be had."""
    wanted = [each.strip() for each in accept.split(",")]
    for each in wanted:
        media_type, _, parameters = each.partition(";")
        if media_type in {JSON, "*/*", "application/*"}:
            return False
        if media_type == SINGLE:
            if "nulls=stripped" in parameters:
                raise not_done("stripping nulls")
            return True
        if media_type.partition("+")[0] in _NOT_DONE or media_type in _NOT_DONE:
            raise not_done(f"answers of type {media_type}")
    raise Refusal(406, "PGRST107", f"None of these media types are available: {', '.join(wanted)}")


def _without_api_key(query: str) -> str:
    """Return a query string as PostgREST gets it: the gateway's part is not its business."""
    return "&".join(part for part in query.split("&") if not part.startswith("apikey="))
