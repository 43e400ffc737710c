"""`.dockerignore`: which paths of a build context are left out (moby `patternmatcher`).

Patterns are Go's `filepath.Match` for each path component, `**` for any number of them, `!` to take back; the
last one that matches decides. Whoever excludes a directory excludes what is in it.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Ignore:
    """Compiled patterns, each with whether it excludes (True) or takes back."""

    patterns: tuple[tuple[re.Pattern[str], bool], ...]

    @classmethod
    def parse(cls, text: str) -> "Ignore":
        found: list[tuple[re.Pattern[str], bool]] = []
        for line in text.removeprefix("\ufeff").splitlines():
            pattern = line.strip()
            if not pattern or pattern.startswith("#"):
                continue
            excludes = not pattern.startswith("!")
            parts = [part for part in pattern.removeprefix("!").strip().split("/") if part not in ("", ".")]
            if parts:
                found.append((re.compile(_regex(parts), re.DOTALL), excludes))
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


def _regex(parts: list[str]) -> str:
    expression = ""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            expression += ".*" if last else "(?:.*/)?"
        else:
            expression += component(part) + ("" if last else "/")
    return expression


def component(pattern: str) -> str:
    """One path component of Go's `filepath.Match` as a regular expression."""
    out, position = "", 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[" and (end := pattern.find("]", position + 1)) > 0:
            inside = pattern[position:end]
            negated = inside.startswith("^")
            out += (
                f"[{'^' if negated else ''}{re.escape(inside.removeprefix('^')).replace(chr(92) + '-', '-')}]"
            )
            position = end + 1
        elif char == "\\" and position < len(pattern):
            out += re.escape(pattern[position])
            position += 1
        else:
            out += re.escape(char)
    return out
