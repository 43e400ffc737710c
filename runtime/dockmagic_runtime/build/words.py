"""The little shell language of Dockerfile arguments: quotes, escapes, `$A`, `${A:-word}`, `${A:+word}`.

Only substitution, never commands. A name that is not set expands to nothing.
"""

import re
from collections.abc import Mapping

from dockmagic_runtime.errors import InvalidParameter

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def expand(text: str, environment: Mapping[str, str], escape: str = "\\") -> str:
    """`text` as one word: variables replaced, quotes taken off. Raises InvalidParameter."""
    return _Reader(text, environment, escape).word()


def split(text: str, environment: Mapping[str, str], escape: str = "\\") -> list[str]:
    """As `expand`, but cut at white space outside of quotes."""
    reader = _Reader(text, environment, escape)
    found: list[str] = []
    while reader.skip_space():
        found.append(reader.word(until=" \t"))
    return found


def tokens(text: str, escape: str = "\\") -> list[str]:
    """`text` cut at white space outside of quotes, each piece as written."""
    reader = _Reader(text, {}, escape)
    found: list[str] = []
    while reader.skip_space():
        start = reader.position
        reader.word(until=" \t")
        found.append(text[start : reader.position])
    return found


class _Reader:
    def __init__(self, text: str, environment: Mapping[str, str], escape: str) -> None:
        self._text, self._environment, self._escape = text, environment, escape
        self.position = 0

    def skip_space(self) -> bool:
        """Go to the next word; whether there is one."""
        while self.position < len(self._text) and self._text[self.position] in " \t":
            self.position += 1
        return self.position < len(self._text)

    def word(self, until: str = "") -> str:
        out: list[str] = []
        while self.position < len(self._text):
            char = self._text[self.position]
            if char in until:
                break
            self.position += 1
            if char == "'":
                out.append(self._to("'"))
            elif char == '"':
                out.append(self._double_quoted())
            elif char == "$":
                out.append(self._variable())
            elif char == self._escape and self.position < len(self._text):
                out.append(self._text[self.position])
                self.position += 1
            else:
                out.append(char)
        return "".join(out)

    def _to(self, end: str) -> str:
        stop = self._text.find(end, self.position)
        if stop < 0:
            raise InvalidParameter(f"unexpected end of statement while looking for matching {_quote(end)}")
        found = self._text[self.position : stop]
        self.position = stop + 1
        return found

    def _double_quoted(self) -> str:
        out: list[str] = []
        while self.position < len(self._text):
            char = self._text[self.position]
            self.position += 1
            if char == '"':
                return "".join(out)
            if char == "$":
                out.append(self._variable())
            elif char == self._escape and self._text[self.position : self.position + 1] in (
                '"',
                "$",
                self._escape,
            ):
                out.append(self._text[self.position])
                self.position += 1
            else:
                out.append(char)
        raise InvalidParameter("unexpected end of statement while looking for matching double-quote")

    def _variable(self) -> str:
        if self._text[self.position : self.position + 1] != "{":
            match = _NAME.match(self._text, self.position)
            if not match:
                return "$"
            self.position = match.end()
            return self._environment.get(match[0], "")
        match = _NAME.match(self._text, self.position + 1)
        if not match:
            raise InvalidParameter(f"bad substitution in {self._text!r}")
        self.position = match.end()
        value = self._environment.get(match[0])
        operator = self._text[self.position : self.position + 2]
        if operator[:1] == "}":
            self.position += 1
            return value or ""
        # With the colon an empty value counts as none.
        wide = operator.startswith(":")
        kind = operator[1:] if wide else operator[:1]
        if kind not in ("-", "+", "?"):
            raise InvalidParameter(f"unsupported modifier ({operator}) in substitution")
        self.position += 2 if wide else 1
        other = self.word(until="}")
        if self.position >= len(self._text):
            raise InvalidParameter("syntax error: missing '}'")
        self.position += 1
        is_set = bool(value) if wide else value is not None
        if kind == "+":
            return other if is_set else ""
        if kind == "?" and not is_set:
            raise InvalidParameter(f"{match[0]}: {other or 'not allowed to be unset'}")
        return (value or "") if is_set else other


def _quote(char: str) -> str:
    return "single-quote" if char == "'" else "double-quote"
