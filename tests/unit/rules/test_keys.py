"""How objects are named, and whose they are."""

from uuid import UUID

import pytest

from s3edge.rules.keys import is_key, is_upload_of, mask_key, parse_id, unsigned, upload_key


ALICE = UUID("a11ce000-0000-4000-8000-000000000001")
BOB = UUID("b0b00000-0000-4000-8000-000000000002")
IMAGE = UUID("1a9e0000-0000-4000-8000-000000000003")


def test_keys_name_their_owner() -> None:
    """Uploads and masks stand under the user's id, as the wire contract says."""
    assert upload_key(ALICE, IMAGE) == f"uploads/{ALICE}/{IMAGE}"
    assert mask_key(ALICE, IMAGE) == f"masks/{ALICE}/{IMAGE}"


def test_a_batchs_masks_have_names_of_their_own() -> None:
    """The first mask has the task's name, the others are numbered."""
    names = [mask_key(ALICE, IMAGE, index) for index in range(3)]

    assert names[0] == mask_key(ALICE, IMAGE)
    assert len(set(names)) == 3
    assert all(is_key(name) for name in names)


def test_an_upload_is_its_owners_alone() -> None:
    """A key belongs to the user that it names and to nobody else."""
    key = upload_key(ALICE, IMAGE)

    assert is_upload_of(ALICE, key)
    assert not is_upload_of(BOB, key)


@pytest.mark.parametrize(
    "key",
    [
        mask_key(ALICE, IMAGE),
        f"uploads/{ALICE}/",
        f"uploads/{ALICE}",
        f"uploads/{ALICE}/{IMAGE}/{IMAGE}",
        f"uploads/{ALICE}/../{BOB}/{IMAGE}",
        f"uploads/{ALICE}/x/../{IMAGE}",
        f"uploads/{ALICE}/photo",
        f"/uploads/{ALICE}/{IMAGE}",
        f"uploads/{ALICE}/{IMAGE} ",
        f"uploads/{ALICE}/{IMAGE}\n",
        f"uploads/{ALICE}/{IMAGE.hex}",
        f"x/uploads/{ALICE}/{IMAGE}",
        "",
    ],
)
def test_nothing_else_is_an_upload(key: str) -> None:
    """Masks, folders, detours and near misses are not a user's uploads."""
    assert not is_upload_of(ALICE, key)


@pytest.mark.parametrize("text", [str(IMAGE), str(IMAGE).upper()])
def test_a_canonical_id_is_read_in_either_case(text: str) -> None:
    """A UUID in its usual form is read, in lower or upper case."""
    assert parse_id(text) == IMAGE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "not-a-uuid",
        IMAGE.hex,
        f"{{{IMAGE}}}",
        f"urn:uuid:{IMAGE}",
        f" {IMAGE}",
        f"{IMAGE}\n",
        f"{IMAGE}\x00",
        f"{IMAGE}"[:-1],
        f"{IMAGE}0",
        f"{IMAGE}".replace("-", ""),
        f"{IMAGE}".replace("1", "\u0661"),
        f"{IMAGE}".replace("a", "\uff41"),
        "\ud800" * 36,
        "../../etc/passwd",
        "%00",
        "-1",
    ],
)
def test_another_spelling_is_no_id(text: str) -> None:
    """Braces, prefixes, missing hyphens, foreign digits and garbage are no id."""
    assert parse_id(text) is None


@pytest.mark.parametrize(
    "key",
    ["a", "a/b", "a.b", "a..b", "A-b_c.9/0", "-", "_", upload_key(ALICE, IMAGE), "x" * 1024],
)
def test_plain_names_are_keys(key: str) -> None:
    """Letters, digits, hyphens, underscores and inner dots are safe everywhere."""
    assert is_key(key)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "a/./b",
        "../a",
        ".hidden",
        "a/.hidden",
        "a\\b",
        "..\\a",
        "a b",
        "a\n",
        "a\x00b",
        "a%2e%2e/b",
        "a?b",
        "a#b",
        "a:b",
        "ä",
        "\ud800",
        "x" * 1025,
    ],
)
def test_what_could_leave_its_place_is_no_key(key: str) -> None:
    """Ways out of a folder, hidden files, separators of URLs and overlong names are refused."""
    assert not is_key(key)


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        ("https://h/a?x=1", "https://h/a"),
        ("https://h/a", "https://h/a"),
        ("https://h/a?x=1?y=2", "https://h/a"),
        ("https://h/a?", "https://h/a"),
        ("", ""),
    ],
)
def test_a_signature_is_cut_off(url: str, bare: str) -> None:
    """What is kept of a URL has no query."""
    assert unsigned(url) == bare
