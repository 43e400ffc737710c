"""A piece of a Dockerfile: the lines around those that an error is about, which are marked, and the column.

Instructions are found as a builder finds them: comments passed over, continued lines and here-documents
taken together. Only their place is wanted here; what is wrong with them, the engine has said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from dockmagic.views.parts import Fold, Note, Part
from dockmagic.views.view import View

AROUND = 3
LONGEST = 20
"""Lines shown of one instruction."""

# Ours, with a column; Docker's classic builder knows none.
_PLACE = re.compile(r"dockerfile parse error (?:on )?line (\d+)(?:, column (\d+))?:", re.IGNORECASE)


class Refusal(View):
    """Why the engine did not take the Dockerfile, and where in it."""

    def __init__(self, sentence: str, dockerfile: str) -> None:
        super().__init__(*refusal(sentence, dockerfile))


def refusal(sentence: str, dockerfile: str) -> list[Part]:
    """The engine's sentence, and the line and column that it names."""
    picture: list[Part] = [Note(f"✗ {sentence}", "bad")]
    if place := _PLACE.search(sentence):
        picture += excerpt(dockerfile, int(place[1]), int(place[2]) if place[2] else None)
    return picture


def excerpt(dockerfile: str, line: int, column: int | None = None) -> list[Part]:
    """The instruction at `line` (from 1) between its neighbours; nothing if there is no such line."""
    lines = dockerfile.splitlines()
    if not 1 <= line <= len(lines):
        return []
    first, last = next((each for each in extents(dockerfile) if each[0] <= line <= each[1]), (line, line))
    begin, end = max(1, first - AROUND), min(len(lines), last + AROUND)
    begin, end = max(begin, line - LONGEST), min(end, line + LONGEST)
    meant = range(line, line + 1) if column else range(first, last + 1)
    width = max(2, len(str(end)))
    shown = []
    for number in range(begin, end + 1):
        text = lines[number - 1]
        shown.append(f"{'▶' if number in meant else ' '} {number:{width}} {text}")
        if column and number == line:
            before = "".join("\t" if sign == "\t" else " " for sign in text[: column - 1])
            shown.append(f"{' ' * (width + 3)}{before}^")
    place = f"line {line}, column {column}," if column else f"line {line}"
    return [Fold(f"It is {place} of the Dockerfile", shown, open=True, tone="bad")]


def is_beginning(dockerfile: str, line: int, column: int) -> bool:
    """Whether an instruction begins there."""
    begins = any(first == line for first, _last in extents(dockerfile))
    return begins and not dockerfile.splitlines()[line - 1][: column - 1].strip()


def line_of(dockerfile: str, step: int) -> int | None:
    """The line (from 1) where the `step`-th instruction (from 1) of a Dockerfile begins; None if it has
    fewer.
    """
    for count, (first, _last) in enumerate(extents(dockerfile), 1):
        if count == step:
            return first
    return None


def extents(dockerfile: str) -> Iterator[tuple[int, int]]:
    """The first and last line (from 1) of each instruction."""
    first, until, number = 0, "", 0
    for number, text in enumerate(dockerfile.splitlines(), 1):
        line = text.strip()
        if not until and (not line or line.startswith("#")):
            continue
        first = first or number
        ended = line == until if until else not line.endswith("\\")
        if until:
            until = "" if ended else until
        elif ended and (until := _heredoc(line)):
            ended = False
        if ended:
            yield first, number
            first = 0
    if first:
        yield first, number


def _heredoc(line: str) -> str:
    """The word that ends the here-document opened on this line, or nothing."""
    word = line.partition("<<")[2].removeprefix("-").split(" ")[0].strip("'\"")
    return word if word.isidentifier() else ""
