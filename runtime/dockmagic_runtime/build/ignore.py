"""`.dockerignore`: which paths of a build context are left out (moby `patternmatcher`).

Patterns are Go's `filepath.Match` for each path component, `**` for any number of them, `!` to take back; the
last one that matches decides. Whoever excludes a directory excludes what is in it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from dockmagic_runtime.errors import InvalidParameter


@dataclass(frozen=True)
class Ignore:
    """Compiled patterns, each with whether it excludes (True) or takes back."""

    patterns: tuple[tuple[re.Pattern[str], bool], ...]

    @classmethod
    def parse(cls, text: str) -> "Ignore":
        """The lines of a `.dockerignore`. Raises InvalidParameter for a pattern that is none."""
        lines = (line.strip() for line in text.removeprefix("\ufeff").splitlines())
        return cls.of(line for line in lines if line and not line.startswith("#"))

    @classmethod
    def of(cls, patterns: Iterable[str]) -> "Ignore":
        found: list[tuple[re.Pattern[str], bool]] = []
        for pattern in patterns:
            excludes = not pattern.startswith("!")
            path = _clean(pattern.removeprefix("!").strip())
            if pattern == "!":
                raise InvalidParameter('illegal exclusion pattern: "!"')
            if path:
                found.append((_compiled(path), excludes))
        return cls(tuple(found))

    @property
    def takes_back(self) -> bool:
        """Whether something inside of an excluded directory may stay."""
        return any(not excludes for _, excludes in self.patterns)

    def excludes(self, path: str) -> bool:
        """`path` is relative, without `.` and `..`."""
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        decision = False
        for pattern, excludes in self.patterns:
            if decision != excludes and any(pattern.fullmatch(each) for each in above):
                decision = excludes
        return decision


def _clean(path: str) -> str:
    """Go's `filepath.Clean`, without the leading slash."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _compiled(path: str) -> re.Pattern[str]:
    try:
        return re.compile(component(path), re.DOTALL)
    except re.error:
        raise InvalidParameter(f"syntax error in pattern: {path}") from None


def component(pattern: str) -> str:
    """Go's `filepath.Match` as a regular expression; `**` stands for any number of directories."""
    out, position = "", 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if pattern.startswith("**", position - 1):
            position += 1
            position += pattern.startswith("/", position)
            out += "(?:.*/)?" if position < len(pattern) else ".*"
        elif char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[":
            end = pattern.find("]", position + 1)
            if end < 0:
                raise InvalidParameter(f"syntax error in pattern: {pattern}")
            inside = pattern[position:end]
            negated = inside.startswith("^")
            out += (
                f"[{'^' if negated else ''}{re.escape(inside.removeprefix('^')).replace(chr(92) + '-', '-')}]"
            )
            position = end + 1
        elif char == "\\":
            if position == len(pattern):
                raise InvalidParameter(f"syntax error in pattern: {pattern}")
            out += re.escape(pattern[position])
            position += 1
        else:
            out += re.escape(char)
    return out
