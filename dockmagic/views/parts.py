"""What a picture is made of: tables, facts, notes, folds and drawings.

Every part holds its rows once and writes them twice, as text and as HTML, word for word the same: the
sequence of words in `html()` (markup, style and drawings left out) is the sequence of words in `text()`. The
tests assert it for every picture, so neither form can say more, or something else, than the other.

Words carry the meaning; colour (`tone`) and bars (`share`) only repeat it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal, Protocol
from unicodedata import combining, east_asian_width

Tone = Literal["", "good", "bad", "warn", "accent", "muted"]


class Part(Protocol):
    """One block of a picture."""

    def text(self) -> str: ...
    def html(self) -> str: ...


@dataclass(frozen=True)
class Cell:
    """One value. `tone` colours what its words already say; `share` (0 to 1) draws a bar beside it."""

    words: str
    tone: Tone = ""
    share: float | None = None


@dataclass(frozen=True)
class Column:
    """A heading and how its values are set: numbers to the right in even digits, code in the code font,
    `whole` ones on one line.
    """

    title: str
    numeric: bool = False
    code: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under headings. The first column names its row. `empty` is the sentence shown when there are no
    rows.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str | Cell]]
    empty: str = "Nothing here."

    def text(self) -> str:
        lines = [self.caption] if self.caption else []
        cells = [[column.title for column in self.columns]]
        cells += [[_cell(value).words for value in row] for row in self.rows]
        widths = [max(_width(row[place]) for row in cells) for place in range(len(self.columns))]
        for row in cells:
            padded = [
                _pad(words, width, column.numeric)
                for words, width, column in zip(row, widths, self.columns, strict=True)
            ]
            lines.append("   ".join(padded).rstrip())
        if not self.rows:
            lines.append(self.empty)
        return "\n".join(lines)

    def html(self) -> str:
        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        heads = "".join(
            f'<th scope="col"{_class("dm-n" if column.numeric else "")}>{escape(column.title)}</th>'
            for column in self.columns
        )
        body = "".join(f"<tr>{self._row(row)}</tr>" for row in self.rows)
        if not self.rows:
            body = f'<tr><td class="dm-empty" colspan="{len(self.columns)}">{escape(self.empty)}</td></tr>'
        return (
            f'<table class="dm-table">{caption}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
        )

    def _row(self, row: Sequence[str | Cell]) -> str:
        return "".join(
            _html_cell(_cell(value), "th" if place == 0 else "td", column)
            for place, (value, column) in enumerate(zip(row, self.columns, strict=True))
        )


@dataclass(frozen=True)
class Facts:
    """Names and values of one thing, one pair a line."""

    caption: str
    pairs: Sequence[tuple[str, str | Cell]]
    code: frozenset[str] = field(default_factory=frozenset)

    def text(self) -> str:
        width = max((_width(name) for name, _ in self.pairs), default=0)
        lines = [f"{_pad(name, width)}   {_cell(value).words}".rstrip() for name, value in self.pairs]
        return "\n".join([self.caption, *lines])

    def html(self) -> str:
        rows = "".join(
            f'<tr><th scope="row">{escape(name)}</th>'
            f"{_html_cell(_cell(value), 'td', Column(name, code=name in self.code))}</tr>"
            for name, value in self.pairs
        )
        return (
            f'<table class="dm-table dm-facts"><caption>{escape(self.caption)}</caption>'
            f"<tbody>{rows}</tbody></table>"
        )


@dataclass(frozen=True)
class Note:
    """One sentence about the picture: what is not known, what a mark means, what went wrong."""

    words: str
    tone: Tone = "muted"

    def text(self) -> str:
        return self.words

    def html(self) -> str:
        return f"<p{_class('dm-note', self.tone)}>{escape(self.words)}</p>"


@dataclass(frozen=True)
class Fold:
    """Lines behind a summary: closed at first unless `open`, opened by mouse or keyboard."""

    summary: str
    lines: Sequence[str]
    open: bool = False
    tone: Tone = ""

    def text(self) -> str:
        return "\n".join([self.summary, *(f"    {line}".rstrip() for line in self.lines)])

    def html(self) -> str:
        return (
            f"<details{_class('dm-fold', self.tone)}{' open' if self.open else ''}>"
            f"<summary>{escape(self.summary)}</summary><pre>{escape(chr(10).join(self.lines))}</pre></details>"
        )


@dataclass(frozen=True)
class Drawing:
    """An SVG with the sentence that says what it shows. The numbers it draws stand in a table of the same
    picture. `reachable`: it has parts that the keyboard gets to, each with a label of its own.
    """

    svg: str
    sentence: str
    reachable: bool = False

    def text(self) -> str:
        return self.sentence

    def html(self) -> str:
        role = "group" if self.reachable else "img"
        return (
            f'<figure class="dm-figure">'
            f'<div role="{role}" aria-label="{escape(self.sentence)}">{self.svg}</div>'
            f"<figcaption>{escape(self.sentence)}</figcaption></figure>"
        )


def _cell(value: str | Cell) -> Cell:
    return value if isinstance(value, Cell) else Cell(value)


def _html_cell(cell: Cell, tag: Literal["th", "td"], column: Column) -> str:
    scope = ' scope="row"' if tag == "th" else ""
    words = escape(cell.words)
    if column.code:
        words = f"<code>{words}</code>"
    if cell.share is not None:
        width = round(100 * min(max(cell.share, 0), 1), 1)
        words += f'<span class="dm-bar" aria-hidden="true"><i style="width:{width}%"></i></span>'
    name = "dm-n" if column.numeric else "dm-whole" if column.whole else ""
    return f"<{tag}{scope}{_class(name, cell.tone)}>{words}</{tag}>"


def _class(name: str, tone: Tone = "") -> str:
    names = " ".join(part for part in (name, f"dm-{tone}" if tone else "") if part)
    return f' class="{names}"' if names else ""


def _width(words: str) -> int:
    """Columns a terminal needs: wide East Asian characters take two, combining ones none."""
    return sum(0 if combining(sign) else 2 if east_asian_width(sign) in "WF" else 1 for sign in words)


def _pad(words: str, width: int, right: bool = False) -> str:
    space = " " * (width - _width(words))
    return space + words if right else words + space
