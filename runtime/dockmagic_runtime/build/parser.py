"""Dockerfile text into instructions; what they mean is for `instructions`.

    directives (`# escape=`) → logical lines (comments dropped, continuations joined) → Node for each

A Node knows where it came from: every complaint about a Dockerfile names its line and column, also of a word
in a continued line. Here-documents (`RUN <<EOF`, `COPY <<a.txt <<b.txt /`) are the lines that follow.
"""

import json
import re
from bisect import bisect_right
from dataclasses import dataclass

from dockmagic_runtime.build import words
from dockmagic_runtime.errors import InvalidParameter

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][\w.-]*)\s*=\s*(.+?)\s*$")
_NAME = re.compile(r"\s*(\S+)\s*")
_SPACE = re.compile(r"\s*")
_KNOWN_DIRECTIVES = ("escape", "syntax", "check")
_WITH_HEREDOCS = frozenset(("RUN", "COPY", "ADD", "ONBUILD"))
_HEREDOC = re.compile(r"\d*<<(-?)([^<]+)")


class DockerfileError(InvalidParameter):
    """A Dockerfile that makes no sense; `line` and `column` count from 1."""

    def __init__(self, message: str, line: int, column: int = 1) -> None:
        super().__init__(f"dockerfile parse error on line {line}, column {column}: {message}")
        self.line, self.column = line, column


@dataclass(frozen=True)
class Heredoc:
    """`<<NAME` and the lines up to NAME. `expand`: the name was not quoted, so variables mean something."""

    name: str
    lines: str
    expand: bool
    chomp: bool

    @property
    def content(self) -> str:
        """The lines; after `<<-` without the tabs that they begin with."""
        return re.sub(r"(?m)^\t+", "", self.lines) if self.chomp else self.lines


@dataclass(frozen=True)
class Node:
    """One instruction: `FROM` … in capitals, its `--flags`, and the rest as written, continuations joined."""

    name: str
    flags: tuple[tuple[str, str], ...]
    text: str
    line: int
    column: int = 1
    escape: str = "\\"
    heredocs: tuple[Heredoc, ...] = ()
    raw: str = ""
    """The logical line, of which `starts` says where each of its lines begins: (offset, line number)."""
    starts: tuple[tuple[int, int], ...] = ()

    @property
    def original(self) -> str:
        """The instruction on one line."""
        flags = (f"--{key}={value}" if value else f"--{key}" for key, value in self.flags)
        return " ".join(part for part in (self.name, *flags, self.text) if part)

    def error(self, message: str, about: str = "") -> DockerfileError:
        """`about` is a piece of the instruction: the error points at it, else at the instruction."""
        offset = self.raw.find(about, self.column - 1 + len(self.name)) if about else -1
        if offset < 0:
            return DockerfileError(message, self.line, self.column)
        start, line = self.starts[bisect_right(self.starts, offset, key=lambda start: start[0]) - 1]
        return DockerfileError(message, line, offset - start + 1)


def parse(text: str) -> list[Node]:
    """All instructions in order. Raises DockerfileError."""
    lines = text.removeprefix("\ufeff").splitlines()
    escape, start = _directives(lines)
    reader = _Reader(lines, start, escape)
    nodes: list[Node] = []
    while node := reader.node():
        nodes.append(node)
    if not nodes:
        raise InvalidParameter("the Dockerfile cannot be empty")
    return nodes


def _directives(lines: list[str]) -> tuple[str, int]:
    """The escape character, and how many lines at the top were directives."""
    escape = "\\"
    seen: set[str] = set()
    for number, line in enumerate(lines):
        match = _DIRECTIVE.match(line)
        if not match or match[1].lower() not in _KNOWN_DIRECTIVES:
            return escape, number
        name = match[1].lower()
        if name in seen:
            raise DockerfileError(f"only one {name} parser directive can be used", number + 1)
        seen.add(name)
        if name == "escape":
            if match[2] not in ("\\", "`"):
                raise DockerfileError(
                    f"invalid ESCAPE '{match[2]}'. Must be ` or \\", number + 1, match.start(2) + 1
                )
            escape = match[2]
        elif name == "check":
            _check(match[2], number + 1, match.start(2) + 1)
    return escape, len(lines)


def _check(text: str, line: int, column: int) -> None:
    """`# check=skip=RuleName,…;error=true`: for `checks`, which a build does not run."""
    for option in text.split(";"):
        key, equals, value = (part.strip() for part in option.partition("="))
        if key not in ("skip", "error") or not equals:
            raise DockerfileError(f"invalid check option {key!r}", line, column)
        if key == "error" and value.lower() not in ("true", "false", "1", "0", "t", "f"):
            raise DockerfileError(f"invalid check value {value!r} for error", line, column)


class _Reader:
    """Goes through the lines once."""

    def __init__(self, lines: list[str], number: int, escape: str) -> None:
        self._lines, self._number, self._escape = lines, number, escape
        self._continued = re.compile(rf"{re.escape(escape)}[ \t]*$")

    def node(self) -> Node | None:
        """The next instruction."""
        joined, starts = "", []
        while self._number < len(self._lines):
            line = self._lines[self._number]
            self._number += 1
            # A comment or an empty line inside of a continued instruction is skipped, as Docker still does.
            if line.lstrip().startswith("#") or not line.strip():
                continue
            starts.append((len(joined), self._number))
            more = self._continued.search(line)
            joined += line[: more.start()] if more else line
            if not more:
                if joined.strip():
                    break
                joined, starts = "", []
        return self._made(joined, starts) if joined.strip() else None

    def _made(self, raw: str, starts: list[tuple[int, int]]) -> Node:
        name = _NAME.match(raw)
        assert name
        flags, position = _flags(raw, name.end(), self._escape)
        text = raw[position:].strip()
        heredocs: tuple[Heredoc, ...] = ()
        if name[1].upper() in _WITH_HEREDOCS and "<<" in text and not _is_json(text):
            heredocs = tuple(self._heredoc(match) for match in _heredoc_words(text, self._escape))
        line, column = starts[0][1], name.start(1) + 1
        return Node(name[1].upper(), flags, text, line, column, self._escape, heredocs, raw, tuple(starts))

    def _heredoc(self, match: re.Match[str]) -> Heredoc:
        chomp, written = bool(match[1]), match[2]
        name = words.expand(written, {}, self._escape)
        first = self._number
        while self._number < len(self._lines):
            line = self._lines[self._number]
            self._number += 1
            if (line.lstrip("\t") if chomp else line) == name:
                body = "".join(f"{each}\n" for each in self._lines[first : self._number - 1])
                return Heredoc(name, body, written == name, chomp)
        raise DockerfileError(f"unterminated heredoc: no line {name!r} ends it", first)


def _heredoc_words(text: str, escape: str) -> list[re.Match[str]]:
    """The words that begin here-documents; quotes around a whole word make it none."""
    try:
        found = [_HEREDOC.fullmatch(word) for word in words.tokens(text, escape)]
    except InvalidParameter:
        # A shell line may have quotes of its own sort: then it is for the shell.
        found = [_HEREDOC.fullmatch(word) for word in text.split()]
    return [match for match in found if match]


def _is_json(text: str) -> bool:
    try:
        return text.startswith("[") and isinstance(json.loads(text), list)
    except ValueError:
        return False


def _flags(raw: str, position: int, escape: str) -> tuple[tuple[tuple[str, str], ...], int]:
    """The `--name=value` words at `position`, quotes taken off, and where the rest begins."""
    flags: list[tuple[str, str]] = []
    while raw.startswith("--", position):
        word, position = _flag_word(raw, position, escape)
        space = _SPACE.match(raw, position)
        position = space.end() if space else position
        if word == "--":
            break
        name, _, value = word[2:].partition("=")
        flags.append((name, value))
    return tuple(flags), position


def _flag_word(raw: str, position: int, escape: str) -> tuple[str, int]:
    word, quote = "", ""
    while position < len(raw) and (quote or not raw[position].isspace()):
        char = raw[position]
        position += 1
        if char == escape and position < len(raw) and quote != "'":
            word += raw[position]
            position += 1
        elif char == quote:
            quote = ""
        elif char in "\"'" and not quote:
            quote = char
        else:
            word += char
    return word, position
