"""An upload is the same upload however its body is cut, and no body breaks the parser."""

import itertools
from collections.abc import AsyncIterator
from uuid import UUID

import anyio
from attrs import frozen
from hypothesis import example, given
from hypothesis import strategies as st

from s3edge.errors import Code, Detail, EdgeError
from s3edge.web.http import ClientDisconnected, Request
from s3edge.web.multipart import UploadForm


BOUNDARY = b"bd"
CONTENT_TYPE = "multipart/form-data; boundary=bd"


@frozen
class Read:
    """What was read of a form that is good."""

    content_type: str
    content: bytes


@frozen
class Refused:
    """Why a form was refused."""

    code: Code
    message: str
    details: tuple[Detail, ...]


async def chunked(body: bytes, cuts: list[int]) -> AsyncIterator[bytes]:
    """Yield a body in pieces, some of them empty."""
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in itertools.pairwise(places):
        yield body[start:end]


async def read(chunks: AsyncIterator[bytes], headers: dict[str, str]) -> Read | Refused:
    """Read a form to its end."""
    try:
        async with UploadForm(Request("POST", "/", "", headers, chunks)) as form:
            content = b"".join([chunk async for chunk in form.chunks()])
            return Read(form.content_type, content)
    except EdgeError as error:
        return Refused(error.code, error.message, error.details)


def answer_to(body: bytes, cuts: list[int]) -> Read | Refused:
    """Return what becomes of a body that is cut so."""

    async def run() -> Read | Refused:
        return await read(chunked(body, cuts), {"content-type": CONTENT_TYPE})

    return anyio.run(run)


CUTS = st.lists(st.integers(0, 2000), max_size=12)

# Nearly boundaries, so that the parser has to look behind and ahead.
CONTENTS = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from(
            [b"\r", b"\n", b"\r\n", b"-", b"--", b"--b", b"--bd", b"\r\n--bd", b"\r\n--bd-", b"x"]
        ),
        max_size=10,
    ).map(b"".join),
)


@st.composite
def parts(draw: st.DrawFn) -> bytes:
    """Draw one part, mostly good."""
    name = draw(st.sampled_from([b"file", b"file", b"project_id", b"note", b"", b"\xff"]))
    head = b'Content-Disposition: form-data; name="%s"' % name
    if draw(st.booleans()):
        head += b'; filename="cat.png"'
    if draw(st.booleans()):
        head += b"\r\nContent-Type: " + draw(
            st.sampled_from([b"image/png", b"IMAGE/JPEG; a=b", b"", b"\xff"])
        )
    content = draw(CONTENTS | st.uuids().map(lambda value: str(value).encode()))
    return b"--bd\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Draw a body, good or damaged somewhere."""
    body = b"".join(draw(st.lists(parts(), max_size=4))) + b"--bd--\r\n"
    body = draw(st.sampled_from([b"", b"", b"\r\n", b"\n\n", b"\r\nx", b"pre"])) + body
    body += draw(st.sampled_from([b"", b"", b"epilogue", b"\r\n--bd\r\n"]))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        start = draw(st.integers(0, len(body)))
        end = min(len(body), start + draw(st.integers(0, 4)))
        inserted = draw(st.sampled_from([b"", b"\r", b"\n", b"-", b":", b" ", b"\0", b"\r\n--bd"]))
        body = body[:start] + inserted + body[end:]
    return body


@given(bodies(), CUTS)
@example(b"\r\njunk--bd\r\n", [2])
def test_the_answer_does_not_depend_on_the_cuts(body: bytes, cuts: list[int]) -> None:
    """Good or bad, a body is the same in one piece, in any pieces and byte by byte."""
    whole = answer_to(body, [])

    assert answer_to(body, cuts) == whole
    assert answer_to(body, list(range(len(body)))) == whole


@given(
    CONTENTS.filter(lambda content: b"\r\n--bd" not in b"\r\n" + content),
    st.none() | st.uuids(),
    st.booleans(),
    CUTS,
)
def test_a_good_form_is_read_as_it_was_written(
    content: bytes,
    project_id: UUID | None,
    file_first: bool,
    cuts: list[int],
) -> None:
    """Every byte of the file arrives, whatever it holds, with the project before it or behind."""
    file = (
        b'--bd\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n'
        b"Content-Type: image/png\r\n\r\n" + content + b"\r\n"
    )
    project = (
        b""
        if project_id is None
        else b'--bd\r\nContent-Disposition: form-data; name="project_id"\r\n\r\n%s\r\n'
        % str(project_id).encode()
    )
    body = (file + project if file_first else project + file) + b"--bd--\r\n"

    assert answer_to(body, cuts) == Read("image/png", content)


@given(st.binary(max_size=300) | bodies(), CUTS, st.booleans())
def test_no_body_raises_anything_unforeseen(
    body: bytes,
    cuts: list[int],
    disconnects: bool,
) -> None:
    """A body is read, refused as a bad request, or the client is gone."""

    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in chunked(body, cuts):
            yield chunk
        if disconnects:
            raise ClientDisconnected

    async def run() -> Read | Refused | None:
        try:
            return await read(chunks(), {"content-type": CONTENT_TYPE})
        except ClientDisconnected:
            assert disconnects
            return None

    answer = anyio.run(run)

    if isinstance(answer, Refused):
        assert answer.code is Code.INVALID_REQUEST
        answer.message.encode()


# What a door hands over is decoded as latin-1.
LATIN = st.text(st.characters(max_codepoint=255), max_size=60)


@given(
    st.one_of(
        LATIN,
        LATIN.map(lambda text: "multipart/form-data;" + text),
        LATIN.map(lambda text: "multipart/form-data; boundary=" + text),
    ),
    st.none() | LATIN | st.integers().map(str),
)
def test_no_header_raises_anything_unforeseen(content_type: str, length: str | None) -> None:
    """Any Content-Type and Content-Length are read or refused."""
    headers = {"content-type": content_type}
    if length is not None:
        headers["content-length"] = length

    async def run() -> Read | Refused:
        return await read(chunked(b"--bd--", []), headers)

    answer = anyio.run(run)

    assert isinstance(answer, Refused)
    assert answer.code in (Code.INVALID_REQUEST, Code.FILE_TOO_LARGE)
