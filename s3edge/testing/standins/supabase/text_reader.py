"""Reads a text from left to right and refuses it where it stops making sense."""

from s3edge.testing.standins.supabase.refusals import Refusal, unparsable


class TextReader:
    """
    A position in a part of a query string.

    Args:
        what: The part, as PostgREST's messages call it.
        text: All of it.
    """

    def __init__(self, what: str, text: str) -> None:
        self._what = what
        self._text = text
        self._at = 0

    def at(self, expected: str) -> bool:
        """Return whether this comes next."""
        return self._text.startswith(expected, self._at)

    def take(self, expected: str) -> bool:
        """Pass over this if it comes next, and return whether it did."""
        found = self.at(expected)
        if found:
            self._at += len(expected)
        return found

    def expect(self, expected: str) -> None:
        """
        Pass over this.

        Raises:
            Refusal: Something else comes next.
        """
        if not self.take(expected):
            raise self.refuse(f'"{expected}"')

    def end(self) -> None:
        """
        Return at the end of the text.

        Raises:
            Refusal: Something follows.
        """
        if self._at < len(self._text):
            raise self.refuse("end of input")

    def refuse(self, expected: str, *, back: int = 0) -> Refusal:
        """
        Return the refusal of what comes next.

        Args:
            expected: What could have been there.
            back: How many characters before here it begins.
        """
        at = self._at - back
        found = f'"{self._text[at]}"' if at < len(self._text) else "end of input"
        return unparsable(
            self._what, self._text, at + 1, f"unexpected {found} expecting {expected}"
        )

    def spaces(self) -> None:
        """Pass over spaces and tabs."""
        while self.at(" ") or self.at("\t"):
            self._at += 1

    def rest(self) -> str:
        """Return all that is left."""
        rest = self._text[self._at :]
        self._at = len(self._text)
        return rest

    def until(self, stops: str) -> str:
        """Return what comes before the first of these characters, or before the end."""
        start = self._at
        while self._at < len(self._text) and self._text[self._at] not in stops:
            self._at += 1
        return self._text[start : self._at]

    def letters(self) -> str:
        """Return the letters and underscores that come next."""
        start = self._at
        while self._at < len(self._text) and (
            self._text[self._at].isalpha() or self._text[self._at] == "_"
        ):
            self._at += 1
        return self._text[start : self._at]

    def name(self) -> str:
        """
        Return a column's name: quoted, or of letters, digits, ``_``, ``$``, spaces and dashes.

        Raises:
            Refusal: None comes next.
        """
        if self.at('"'):
            quoted = self._quoted()
            if quoted is None:
                raise self.refuse('"\\""')
            return quoted
        start = self._at
        while self._at < len(self._text) and self._is_of_name():
            self._at += 1
        name = self._text[start : self._at].strip(" ")
        if not name:
            raise self.refuse("field name (* or [a..z0..9_$])")
        return name

    def quoted_before(self, stops: str) -> str | None:
        """Return a quoted value that one of these characters or the end follows, or ``None``."""
        start = self._at
        quoted = self._quoted()
        ended = self._at == len(self._text) or self._text[self._at] in stops
        if quoted is None or not ended:
            self._at = start
            return None
        return quoted

    def braces(self) -> str | None:
        """Return an array of Postgres, without others in it, as it is written; or ``None``."""
        if not self.at("{"):
            return None
        end = self._text.find("}", self._at)
        if end < 0 or "{" in self._text[self._at + 1 : end]:
            return None
        array = self._text[self._at : end + 1]
        self._at = end + 1
        return array

    def _is_of_name(self) -> bool:
        character = self._text[self._at]
        if character == "-":
            return not self.at("->")
        return character.isalnum() or character in "_ $"

    def _quoted(self) -> str | None:
        """Return a value between quotes, with backslashes undone; ``None`` when it has no end."""
        start = self._at
        if not self.take('"'):
            return None
        value: list[str] = []
        while self._at < len(self._text):
            character = self._text[self._at]
            self._at += 1
            if character == '"':
                return "".join(value)
            if character == "\\":
                if self._at == len(self._text):
                    break
                character = self._text[self._at]
                self._at += 1
            value.append(character)
        self._at = start
        return None
