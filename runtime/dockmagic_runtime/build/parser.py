"""Dockerfile text into instructions; what they mean is for `instructions`.

    directives (`# escape=`) → logical lines (comments dropped, continuations joined) → Node for each

A Node knows where it came from: every complaint about an instruction has a line and a column, also of a word
in a continued line. What is wrong with the text names them in its sentence (DockerfileError); what fails
later has Docker's sentence, and the place beside it (`Node.blamed`). Here-documents (`RUN <<EOF`,
`COPY <<a.txt <<b.txt /`) are the lines that follow.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from dockmagic_runtime.build import words
from dockmagic_runtime.errors import EngineError, InvalidParameter, NotImplementedHere

_Error = TypeVar("_Error", bound=EngineError)

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][\w.-]*)\s*=\s*(.+?)\s*$")
_NAME = re.compile(r"\s*(\S+)\s*")
_SPACE = re.compile(r"\s*")
_KNOWN_DIRECTIVES = ("escape", "syntax", "check")
_WITH_HEREDOCS = frozenset(("RUN", "COPY", "ADD", "ONBUILD"))
_HEREDOC = re.compile(r"\d*<<(-?)([^<]+)")


class DockerfileError(InvalidParameter):
    """A Dockerfile that makes no sense; `reason` is the sentence without the place."""

    def __init__(self, reason: str, line: int, column: int = 1) -> None:
        super().__init__(_with_place(reason, line, column))
        self.reason, self.line, self.column = reason, line, column


def _with_place(reason: str, line: int, column: int) -> str:
    return f"dockerfile parse error on line {line}, column {column}: {reason}"


@dataclass(frozen=True)
class Heredoc:
    """`<<NAME` and the lines up to NAME. `expand`: the name was not quoted, so variables mean something."""

    name: str
    lines: str
    expand: bool
    chomp: bool
    line: int = 0
    """Where the lines begin; 0: not in this Dockerfile."""

    @property
    def content(self) -> str:
        """The lines; after `<<-` without the tabs that they begin with."""
        return re.sub(r"(?m)^\t+", "", self.lines) if self.chomp else self.lines


@dataclass(frozen=True)
class Node:
    """One instruction: `FROM` … in capitals, its `--flags`, and the rest as written, continuations joined.

    A piece of it is named in steps, each to be found in the one before: `--flag`, or `--flag=value` of
    several, or an argument as it is written; then what is meant of that. `last`: of several such arguments.
    """

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
    offsets: tuple[int, ...] = (0,)
    """Where in `raw` each flag begins, and last the text."""

    @property
    def original(self) -> str:
        """The instruction on one line."""
        flags = (f"--{key}={value}" if value else f"--{key}" for key, value in self.flags)
        return " ".join(part for part in (self.name, *flags, self.text) if part)

    def error(self, reason: str, *piece: str, last: bool = False) -> DockerfileError:
        """What is wrong with the text of a piece, or of the instruction."""
        return DockerfileError(reason, *self.place(*piece, last=last))

    def expanded(self, variables: Mapping[str, str], *piece: str, last: bool = False) -> str:
        """The text of a piece, its variables put in. Raises DockerfileError."""
        try:
            return words.expand(piece[-1], variables, self.escape)
        except words.Unreadable as error:
            raise self.error(str(error), *piece, error.about, last=last) from None

    def lacking(self, reason: str, *piece: str) -> NotImplementedHere:
        """The same for what is right, but not for this builder."""
        return self.placed(NotImplementedHere(_with_place(reason, *self.place(*piece))), *piece)

    def placed(self, error: _Error, *piece: str, last: bool = False) -> _Error:
        """`error`, which is about a piece unless it knows better."""
        if error.line is None:
            error.line, error.column = self.place(*piece, last=last)
        return error

    @contextmanager
    def blamed(self, *piece: str, last: bool = False) -> Iterator[None]:
        """What fails meanwhile is about a piece, unless it knows better."""
        try:
            yield
        except EngineError as error:
            self.placed(error, *piece, last=last)
            raise

    def place(self, *piece: str, last: bool = False) -> tuple[int, int]:
        """Line and column of a piece; of the instruction if there is no such piece."""
        if not (self.raw and piece):
            return self.line, self.column
        begin, end = self.column - 1, len(self.raw)
        for number, part in enumerate(piece):
            found = self._piece(part, last) if number == 0 else _found(self.raw, part, begin, end)
            if found is None:
                break
            begin, end = found
        start, line = self.starts[bisect_right(self.starts, begin, key=lambda start: start[0]) - 1]
        return line, begin - start + 1

    def _piece(self, part: str, last: bool) -> tuple[int, int] | None:
        """Where a flag, or an argument, begins and ends in `raw`."""
        for number, (name, value) in enumerate(self.flags):
            if part in (f"--{name}", f"--{name}={value}"):
                return self.offsets[number], self.offsets[number + 1]
        return _found(self.raw, part, self.offsets[-1], len(self.raw), last)

    def place_in(self, heredoc: Heredoc, part: str) -> tuple[int, int]:
        """Line and column of something in a here-document."""
        offset = heredoc.lines.find(part)
        if not heredoc.line or offset < 0:
            return self.place(f"<<{heredoc.name}")
        line = heredoc.lines.count("\n", 0, offset)
        return heredoc.line + line, offset - heredoc.lines.rfind("\n", 0, offset)

    def inherited(self, line: int, column: int) -> "Node":
        """As an instruction of another Dockerfile: whatever is wrong with it is at `line` and `column`."""
        heredocs = tuple(replace(heredoc, line=0) for heredoc in self.heredocs)
        return replace(self, line=line, column=column, raw="", heredocs=heredocs)


def _found(raw: str, part: str, begin: int, end: int, last: bool = False) -> tuple[int, int] | None:
    """Where `part` is in `raw`, by preference as a word of its own."""
    word = rf"(?<![^\s\"'=,\[]){re.escape(part)}(?![^\s\"',\]])"
    for pattern in (word, re.escape(part)):
        if spans := [match.span() for match in re.compile(pattern).finditer(raw, begin, end)]:
            return spans[-1 if last else 0]
    return None


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
        flags, offsets = _flags(raw, name.end(), self._escape)
        text = raw[offsets[-1] :].strip()
        node = Node(
            name=name[1].upper(),
            flags=flags,
            text=text,
            line=starts[0][1],
            column=name.start(1) + 1,
            escape=self._escape,
            raw=raw,
            starts=tuple(starts),
            offsets=offsets,
        )
        if node.name in _WITH_HEREDOCS and "<<" in text and not _is_json(text):
            found = _heredoc_words(text, self._escape)
            return replace(node, heredocs=tuple(self._heredoc(match, node) for match in found))
        return node

    def _heredoc(self, match: re.Match[str], node: Node) -> Heredoc:
        chomp, written = bool(match[1]), match[2]
        try:
            name = words.expand(written, {}, self._escape)
        except words.Unreadable as error:
            raise node.error(str(error), match[0], error.about) from None
        first = self._number
        while self._number < len(self._lines):
            line = self._lines[self._number]
            self._number += 1
            if (line.lstrip("\t") if chomp else line) == name:
                body = "".join(f"{each}\n" for each in self._lines[first : self._number - 1])
                return Heredoc(name, body, written == name, chomp, first + 1)
        raise node.error(f"unterminated heredoc: no line {name!r} ends it", match[0])


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


def _flags(raw: str, position: int, escape: str) -> tuple[tuple[tuple[str, str], ...], tuple[int, ...]]:
    """The `--name=value` words at `position`, quotes taken off; where each begins, and then the rest."""
    flags: list[tuple[str, str]] = []
    offsets: list[int] = []
    while raw.startswith("--", position):
        start = position
        word, position = _flag_word(raw, position, escape)
        space = _SPACE.match(raw, position)
        position = space.end() if space else position
        if word == "--":
            break
        name, _, value = word[2:].partition("=")
        flags.append((name, value))
        offsets.append(start)
    return tuple(flags), (*offsets, position)


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
