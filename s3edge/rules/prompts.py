"""Which text prompts are accepted."""

import unicodedata

from s3edge.errors import invalid


MAX_PROMPT_CHARACTERS = 500

PROMPT_PATTERN = (
    r"^\s*[^\s\x00-\x1f\x7f-\x9f]"
    rf"([^\x00-\x1f\x7f-\x9f]{{0,{MAX_PROMPT_CHARACTERS - 2}}}[^\s\x00-\x1f\x7f-\x9f])?\s*$"
)
"""The rule below, for the OpenAPI document."""

_CONTROL = "Cc"
_SURROGATE = "Cs"


def clean_prompt(text: str) -> str:
    """
    Return a prompt without the blanks around it.

    Raises:
        EdgeError: ``INVALID_REQUEST`` when nothing is left, more than 500 characters are, or a control
            character or a lone surrogate is among them.
    """
    prompt = text.strip()
    if not prompt:
        raise invalid("text_prompt", "Say what to segment; the prompt is empty.")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise invalid("text_prompt", f"Use at most {MAX_PROMPT_CHARACTERS} characters.")
    if any(unicodedata.category(character) in (_CONTROL, _SURROGATE) for character in prompt):
        raise invalid("text_prompt", "Leave out control characters and lone surrogates.")
    return prompt
