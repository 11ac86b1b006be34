"""Which text prompts are accepted."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3edge.errors import Code, EdgeError
from s3edge.rules.prompts import MAX_PROMPT_CHARACTERS, PROMPT_PATTERN, clean_prompt


def refusal_of(text: str) -> EdgeError | None:
    """Return why a prompt is refused, or ``None``."""
    try:
        clean_prompt(text)
    except EdgeError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("red car", "red car"),
        ("  red car\t\r\n", "red car"),
        ("\u00a0red car\u2003", "red car"),
        ("x", "x"),
        ("the dog's  left ear", "the dog's  left ear"),
        ("Straße, 犬, 🐕‍🦺, كلب", "Straße, 犬, 🐕‍🦺, كلب"),
        ("'; drop table users; --", "'; drop table users; --"),
        ("<script>", "<script>"),
    ],
)
def test_a_prompt_is_trimmed_and_otherwise_kept(text: str, prompt: str) -> None:
    """Blanks around a prompt go; everything within it stays as it was typed."""
    assert clean_prompt(text) == prompt


@pytest.mark.parametrize("text", ["x" * 500, " " * 300 + "x" * 500 + " " * 300, "🐕" * 500])
def test_500_characters_after_trimming_are_accepted(text: str) -> None:
    """The limit counts characters, not bytes, and not the blanks around them."""
    assert len(clean_prompt(text)) == MAX_PROMPT_CHARACTERS == 500


@pytest.mark.parametrize("text", ["x" * 501, " " + "x" * 501, "x" * 499 + "  x", "🐕" * 501])
def test_501_characters_after_trimming_are_refused(text: str) -> None:
    """One character more is too many."""
    refusal = refusal_of(text)

    assert refusal is not None
    assert refusal.code is Code.INVALID_REQUEST
    assert "500" in refusal.message


@pytest.mark.parametrize("text", ["", " ", "\t\r\n", "\u00a0\u2003", "\x1f"])
def test_an_empty_prompt_is_refused(text: str) -> None:
    """A prompt of blanks alone says nothing."""
    refusal = refusal_of(text)

    assert refusal is not None
    assert [detail.field for detail in refusal.details] == ["text_prompt"]


@pytest.mark.parametrize(
    "text",
    ["\x00", "cat\x00", "\x00cat", "a\x00b", "a\tb", "a\nb", "a\rb", "a\x1bb", "a\x7fb", "a\x85b"],
)
def test_control_characters_are_refused(text: str) -> None:
    """NUL, line breaks within a prompt, escapes and C1 controls are refused."""
    refusal = refusal_of(text)

    assert refusal is not None
    assert refusal.code is Code.INVALID_REQUEST


@pytest.mark.parametrize("text", ["\ud800", "cat \udfff", "\udc00\ud800", "a\ud83db"])
def test_lone_surrogates_are_refused(text: str) -> None:
    """What no encoding can write down is refused, and the refusal can itself be written down."""
    refusal = refusal_of(text)

    assert refusal is not None
    assert refusal.code is Code.INVALID_REQUEST
    refusal.message.encode()


@given(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        st.text(" \t\n\x1f\x85\xa0\x00\x7f\x80aé🐕", max_size=8),
        st.builds(str.__mul__, st.sampled_from(["x", "x ", "🐕"]), st.integers(248, 502)),
    )
)
def test_the_published_pattern_says_the_same(text: str) -> None:
    """The OpenAPI document's pattern accepts a text if and only if the rule does."""
    assert bool(re.search(PROMPT_PATTERN, text)) == (refusal_of(text) is None)
