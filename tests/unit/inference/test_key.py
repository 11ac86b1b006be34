"""The key is read in the same way on both sides."""

import pytest

from s3edge_inference.key import api_key


@pytest.mark.parametrize("text", ["hunter2", "hunter2 ", "\thunter2\n"])
def test_blanks_around_it_are_left_out(text: str) -> None:
    """They come with copying, and no header carries them."""
    assert api_key({"API_SECRET_KEY": text}) == "hunter2"


@pytest.mark.parametrize("vendor", [{}, {"API_SECRET_KEY": ""}, {"API_SECRET_KEY": " "}])
def test_it_may_not_be_set(vendor: dict[str, str]) -> None:
    """Either side then says for itself what to do."""
    assert api_key(vendor) == ""


@pytest.mark.parametrize("text", ["hun ter2", "hunter2ü", "hun\x00ter2", "hun\nter2"])
def test_what_no_header_carries_is_refused(text: str) -> None:
    """In words that do not show it."""
    with pytest.raises(ValueError, match="API_SECRET_KEY contains") as caught:
        api_key({"API_SECRET_KEY": text})
    assert "hun" not in str(caught.value)
