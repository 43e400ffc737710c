"""Dockerfile text into instructions; what they mean is for `instructions`.

    directives (`# escape=`) → logical lines (comments dropped, continuations joined) → Node for each

A Node knows where it came from: every complaint about a Dockerfile names its line and column.
"""

import re
from dataclasses import dataclass

from dockmagic_runtime.errors import InvalidParameter

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][\w.-]*)\s*=\s*(.+?)\s*$")
_NAME = re.compile(r"\s*(\S+)\s*")
_FLAG = re.compile(r"--([A-Za-z][\w-]*)(?:=(\S*))?(?:\s+|$)")
_KNOWN_DIRECTIVES = ("escape", "syntax", "check")


class DockerfileError(InvalidParameter):
    """A Dockerfile that makes no sense; `line` and `column` count from 1."""

    def __init__(self, message: str, line: int, column: int = 1) -> None:
        super().__init__(f"dockerfile parse error on line {line}, column {column}: {message}")
        self.line, self.column = line, column


@dataclass(frozen=True)
class Node:
    """One instruction: `FROM` … in capitals, its `--flags`, and the rest as written, continuations joined."""

    name: str
    flags: tuple[tuple[str, str], ...]
    text: str
    line: int
    column: int = 1
    escape: str = "\\"

    @property
    def original(self) -> str:
        """The instruction on one line."""
        flags = (f"--{key}={value}" if value else f"--{key}" for key, value in self.flags)
        return " ".join(part for part in (self.name, *flags, self.text) if part)

    def error(self, message: str) -> DockerfileError:
        return DockerfileError(message, self.line, self.column)


def parse(text: str) -> list[Node]:
    """All instructions in order. Raises DockerfileError."""
    lines = text.removeprefix("\ufeff").splitlines()
    escape, start = _directives(lines)
    continued = re.compile(rf"{re.escape(escape)}[ \t]*$")
    nodes: list[Node] = []
    number = start
    while number < len(lines):
        first = number
        joined, more = "", True
        while more and number < len(lines):
            line = lines[number]
            number += 1
            # A comment or an empty line inside of a continued instruction is skipped, as Docker still does.
            if line.lstrip().startswith("#") or (joined and not line.strip()):
                more = bool(joined)
                if not more:
                    first = number
                continue
            more = bool(continued.search(line))
            joined += continued.sub("", line) if more else line
        if joined.strip():
            nodes.append(_node(joined, first + 1, escape))
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
    return escape, len(lines)


def _node(line: str, number: int, escape: str) -> Node:
    name = _NAME.match(line)
    assert name
    position = name.end()
    flags: list[tuple[str, str]] = []
    while match := _FLAG.match(line, position):
        flags.append((match[1], match[2] or ""))
        position = match.end()
    return Node(name[1].upper(), tuple(flags), line[position:].strip(), number, name.start(1) + 1, escape)
