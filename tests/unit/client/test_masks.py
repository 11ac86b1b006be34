"""A mask is downloaded once, and becomes what a user needs."""

import io
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from s3edge.client import InvalidRequest, MaskNotReady, ServiceUnavailable
from s3edge.client.masks import THRESHOLD, overlay, to_coco_rle, to_numpy, to_polygons
from s3edge.testing.scripted_api import ScriptedApi, ok, refused
from tests.e2e.colours import COLOURS, Colour, done
from tests.e2e.colours import refused as refused_by


RESULT_ID = UUID("6b6f2c1e-2222-4222-8222-222222222222")
MASK_URL = "http://media.test/m?signature=old"

pytestmark = pytest.mark.anyio


def result(mask_image_url: str | None = MASK_URL) -> httpx.Response:
    """Return a result."""
    return ok(
        {
            "id": str(RESULT_ID),
            "project_id": None,
            "source_image_url": "http://media.test/i",
            "mask_image_url": mask_image_url,
            "text_prompt": "red",
            "labels": [],
            "metadata": {},
            "status": "done",
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
        }
    )


def encoded(array: Any) -> bytes:
    """Return an array of truth as a mask."""
    png = io.BytesIO()
    Image.fromarray(np.asarray(array).astype(np.uint8) * 255).save(png, "PNG")
    return png.getvalue()


@pytest.fixture(scope="module")
def ring() -> bytes:
    """Return a mask of a square with a hole, and of one that touches the corner."""
    array = np.zeros((40, 60), dtype=bool)
    array[5:25, 10:40] = True
    array[10:15, 20:25] = False
    array[30:, 50:] = True
    return encoded(array)


def test_a_mask_is_downloaded_once(api: ScriptedApi, ring: bytes, tmp_path: Path) -> None:
    """When it is needed, without the token, and then for everything."""
    api.answer(result(), httpx.Response(200, content=ring))
    mask = api.client().result(RESULT_ID).mask
    assert len(api.requests) == 1
    assert mask.save(tmp_path / "mask.png").read_bytes() == ring == mask.read()
    assert mask.to_pil().size == (60, 40)
    assert mask.to_numpy().shape == (40, 60)
    assert mask.overlay(Image.new("RGB", (60, 40))).mode == "RGB"
    assert len(mask.to_polygons()) == 2
    assert mask.to_coco_rle()["size"] == [40, 60]
    assert [str(request.url) for request in api.requests[1:]] == [MASK_URL]
    assert "Authorization" not in api.requests[1].headers


@pytest.mark.parametrize("colour", COLOURS)
async def test_what_a_mask_cannot_lie_over_is_refused(
    api: ScriptedApi, ring: bytes, tmp_path: Path, colour: Colour
) -> None:
    """A file of text, half an image, none at all, and what is no picture."""
    text, half = tmp_path / "t.jpg", tmp_path / "half.png"
    text.write_text("no image")
    half.write_bytes(ring[: len(ring) // 2])
    api.answer(result(), httpx.Response(200, content=ring))
    client: Any = api.client() if colour == "sync" else api.async_client()
    mask = (await done(client.result(RESULT_ID))).mask
    pictures: list[tuple[Any, str]] = [
        (str(text), f"{text} is not an image"),
        (b"no image", "the image is not an image"),
        (half, f"{half} cannot be read: "),
        (tmp_path / "none.jpg", "none.jpg cannot be read: No such file"),
        (mask, f"{type(mask).__name__} is no picture; give a path"),
    ]
    for picture, says in pictures:
        error = await refused_by(InvalidRequest, partial(mask.overlay, picture))
        assert says in error.message
        assert [detail.field for detail in error.details] == ["image"]


async def test_an_async_mask_is_the_same(api: ScriptedApi, ring: bytes, tmp_path: Path) -> None:
    """Each of its methods is awaited."""
    api.answer(result(), httpx.Response(200, content=ring))
    async with api.async_client() as client:
        mask = (await client.result(RESULT_ID)).mask
        saved = await mask.save(tmp_path / "mask.png")
        assert saved.read_bytes() == ring == await mask.read()
        assert (await mask.to_pil()).size == (60, 40)
        assert (await mask.to_numpy()).shape == (40, 60)
        assert (await mask.overlay(ring)).mode == "RGB"
        assert len(await mask.to_polygons()) == 2
        assert (await mask.to_coco_rle())["size"] == [40, 60]
    assert len(api.requests) == 2


@pytest.mark.parametrize("status", [400, 403, 404])
def test_an_expired_url_is_replaced(api: ScriptedApi, ring: bytes, status: int) -> None:
    """The result is read again for a fresh one, once."""
    api.answer(
        result(),
        httpx.Response(status, content=b"<Error/>"),
        result("http://media.test/m?signature=new"),
        httpx.Response(200, content=ring),
    )
    assert api.client().result(RESULT_ID).mask.read() == ring
    assert str(api.requests[-1].url).endswith("signature=new")


def test_a_download_has_the_retries_of_any_call(api: ScriptedApi, ring: bytes) -> None:
    """And fails as they do."""
    api.answer(result(), httpx.ReadError("x"), httpx.Response(200, content=ring))
    assert api.client().result(RESULT_ID).mask.read() == ring
    api.answer(result(), *[refused(503, "SERVICE_UNAVAILABLE")] * 2)
    with pytest.raises(ServiceUnavailable):
        api.client(max_retries=1).result(RESULT_ID).mask.read()


def test_a_redirect_of_a_mask_is_followed(api: ScriptedApi, ring: bytes) -> None:
    """Storage may move it; there is no token that could leak."""
    api.answer(
        result(),
        httpx.Response(302, headers={"Location": "http://cdn.test/m"}),
        httpx.Response(200, content=ring),
    )
    assert api.client().result(RESULT_ID).mask.read() == ring
    assert {request.headers.get("Authorization") for request in api.requests[1:]} == {None}


def test_a_result_that_is_not_done_has_no_mask(api: ScriptedApi) -> None:
    """The message says so, after looking again."""
    api.answer(result(None), result(None))
    with pytest.raises(MaskNotReady):
        api.client().result(RESULT_ID).mask.read()


def test_an_array_is_the_mask(ring: bytes) -> None:
    """Height by width, true inside."""
    array = to_numpy(ring)
    assert (str(array.dtype), array.shape) == ("bool", (40, 60))
    assert int(array.sum()) == 600 - 25 + 100
    assert array[6, 11]
    assert not array[12, 22]


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_give_back_every_pixel(seed: int) -> None:
    """As COCO counts them: down the columns, outside first."""
    random = np.random.default_rng(seed)
    array = random.random((random.integers(1, 20), random.integers(1, 20))) < seed / 19
    coded = to_coco_rle(encoded(array))
    assert coded["size"] == list(array.shape)
    flat = np.repeat(np.arange(len(coded["counts"])) % 2, coded["counts"]).astype(bool)
    assert (flat.reshape(array.shape, order="F") == array).all()


def test_polygons_cover_the_mask(ring: bytes) -> None:
    """Every part has one, also at the edge; holes are filled, as COCO knows none."""
    polygons = to_polygons(ring)
    canvas = Image.new("L", (60, 40))
    for polygon in polygons:
        assert len(polygon) % 2 == 0
        ImageDraw.Draw(canvas).polygon(polygon, fill=255)
    expected = to_numpy(ring)
    expected[10:15, 20:25] = True
    drawn = np.asarray(canvas) > THRESHOLD
    overlap = (drawn & expected).sum() / (drawn | expected).sum()
    assert overlap > 0.9
    assert to_polygons(encoded(np.zeros((4, 4)))) == []


def test_an_overlay_tints_what_is_inside(ring: bytes, tmp_path: Path) -> None:
    """From a path, bytes or a picture; the rest is dimmed, the size is the picture's."""
    picture = Image.new("RGB", (60, 40), (100, 100, 100))
    path = tmp_path / "picture.png"
    picture.save(path)
    for source in (picture, path, str(path), path.read_bytes()):
        shown = overlay(ring, source)
        inside, outside = shown.getpixel((12, 8)), shown.getpixel((1, 1))
        assert isinstance(inside, tuple)
        assert isinstance(outside, tuple)
        assert inside[0] > 100 > outside[0]
    assert overlay(ring, picture.resize((120, 80))).size == (120, 80)
