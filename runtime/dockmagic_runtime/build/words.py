"""The little shell language of Dockerfile arguments: quotes, escapes, `$A`, `${A:-word}`, `${A##*/}`.

Only substitution, never commands. A name that is not set expands to nothing. What follows the name in braces:

    :-word  :+word  :?word     instead of none or empty, instead of some, an error; without colon: unset only
    #glob ##glob %glob %%glob  without the shortest or longest such beginning, or end
    /glob/word  //glob/word    the first, or every, occurrence replaced

A glob has `*`, `?` and escapes, no classes (BuildKit `frontend/dockerfile/shell`).
"""

import re
from collections.abc import Mapping

from dockmagic_runtime.errors import InvalidParameter

# A name, a number of an argument or one of the shell's own: these last are never set here.
_NAME = re.compile(r"[A-Za-z_]\w*|\d+|[@*#?\-$!]", re.ASCII)


def expand(text: str, environment: Mapping[str, str], escape: str = "\\", *, quotes: bool = True) -> str:
    """`text` as one word: variables replaced, quotes taken off (or left, as in a here-document).

    Raises Unreadable.
    """
    return _Reader(text, environment, escape, quotes).word()


def with_defaults(text: str, defaults: Mapping[str, str]) -> str:
    """`text` with the defaults of ARG; as it is written where a variable has none: a --build-arg decides."""
    names = re.findall(r"\$\{?(\w+)", text)
    try:
        return expand(text, defaults) if all(name in defaults for name in names) else text
    except InvalidParameter:
        return text


def tokens(text: str, escape: str = "\\") -> list[str]:
    """`text` cut at white space outside of quotes, each piece as written."""
    reader = _Reader(text, {}, escape)
    reader.measuring = True
    found: list[str] = []
    while reader.skip_space():
        start = reader.position
        reader.word(until=" \t")
        found.append(text[start : reader.position])
    return found


class Unreadable(InvalidParameter):
    """Words that mean nothing; `about` is the piece of them that is to blame."""

    def __init__(self, message: str, about: str) -> None:
        super().__init__(message)
        self.about = about


class _Reader:
    def __init__(self, text: str, environment: Mapping[str, str], escape: str, quotes: bool = True) -> None:
        self._text, self._environment, self._escape = text, environment, escape
        self._quotes = quotes
        self.position = 0
        self.measuring = False
        """Only looking where words end: what variables there are is not known yet."""

    def skip_space(self) -> bool:
        """Go to the next word; whether there is one."""
        while self.position < len(self._text) and self._text[self.position] in " \t":
            self.position += 1
        return self.position < len(self._text)

    def word(self, until: str = "", *, escapes: bool = False) -> str:
        """Up to one of `until` or the end. `escapes`: they stay, for a glob."""
        out: list[str] = []
        while self.position < len(self._text):
            char = self._text[self.position]
            if char in until:
                break
            self.position += 1
            if char == "'" and self._quotes:
                out.append(self._single_quoted())
            elif char == '"' and self._quotes:
                out.append(self._double_quoted())
            elif char == "$":
                out.append(self._variable())
            elif char == self._escape and self.position < len(self._text):
                out.append(("\\" if escapes else "") + self._text[self.position])
                self.position += 1
            else:
                out.append(char)
        return "".join(out)

    def _single_quoted(self) -> str:
        stop = self._text.find("'", self.position)
        if stop < 0:
            raise self._unended("single-quote", self.position - 1)
        found = self._text[self.position : stop]
        self.position = stop + 1
        return found

    def _double_quoted(self) -> str:
        out: list[str] = []
        start = self.position - 1
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
        raise self._unended("double-quote", start)

    def _unended(self, quote: str, start: int) -> Unreadable:
        return Unreadable(
            f"unexpected end of statement while looking for matching {quote}", self._text[start:]
        )

    def _variable(self) -> str:
        start = self.position - 1
        try:
            return self._substituted()
        except Unreadable:
            raise  # of a variable in this one
        except InvalidParameter as error:
            raise Unreadable(str(error), self._text[start : self.position]) from None

    def _substituted(self) -> str:
        """The variable at `position`. Raises InvalidParameter."""
        braced = self._text[self.position : self.position + 1] == "{"
        match = _NAME.match(self._text, self.position + braced)
        if not match:
            if braced:
                raise InvalidParameter(f"bad substitution in {self._text!r}")
            return "$"
        self.position = match.end()
        value = self._environment.get(match[0])
        if not braced:
            return value or ""
        operator = self._next()
        if operator == "}":
            return value or ""
        if operator in ("#", "%"):
            return self._trimmed(value or "", operator)
        if operator == "/":
            return self._replaced(value or "")
        return self._alternative(match[0], value, operator)

    def _alternative(self, name: str, value: str | None, operator: str) -> str:
        # With the colon an empty value counts as none.
        colon = operator == ":"
        kind = self._next() if colon else operator
        if kind not in ("-", "+", "?"):
            if not operator:
                raise InvalidParameter("syntax error: missing '}'")
            raise InvalidParameter(
                f"unsupported modifier ({operator}{kind if colon else ''}) in substitution"
            )
        other = self._up_to("}")
        is_set = bool(value) if colon else value is not None
        if kind == "+":
            return other if is_set else ""
        if kind == "?" and not is_set and not self.measuring:
            state = "unset" if value is None else "empty"
            raise InvalidParameter(f"{name}: {other or f'is not allowed to be {state}'}")
        return (value or "") if is_set else other

    def _trimmed(self, value: str, side: str) -> str:
        greedy = self._text[self.position : self.position + 1] == side
        self.position += greedy
        glob = _glob(self._up_to("}", escapes=True))
        cuts = range(len(value) + 1) if greedy == (side == "%") else range(len(value), -1, -1)
        for cut in cuts:
            if side == "#" and glob.fullmatch(value, 0, cut):
                return value[cut:]
            if side == "%" and glob.fullmatch(value, cut):
                return value[:cut]
        return value

    def _replaced(self, value: str) -> str:
        everywhere = self._text[self.position : self.position + 1] == "/"
        self.position += everywhere
        glob = _glob(self._up_to("/", escapes=True))
        other = self._up_to("}")
        return glob.sub(lambda _: other, value, count=0 if everywhere else 1)

    def _up_to(self, end: str, *, escapes: bool = False) -> str:
        found = self.word(until=end, escapes=escapes)
        if not self._next():
            raise InvalidParameter(f"syntax error: missing '{end}'")
        return found

    def _next(self) -> str:
        char = self._text[self.position : self.position + 1]
        self.position += 1
        return char


def _glob(pattern: str) -> re.Pattern[str]:
    out, position = "", 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "\\" and position < len(pattern):
            out += re.escape(pattern[position])
            position += 1
        else:
            out += {"*": ".*", "?": "."}.get(char) or re.escape(char)
    return re.compile(out, re.DOTALL)
