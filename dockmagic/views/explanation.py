"""A Dockerfile with what each line of it does beside it, and what would better be done otherwise."""

from __future__ import annotations

from typing import Any

from dockmagic.views.layers import INSTRUCTION_WIDTH
from dockmagic.views.parts import Cell, Column, Note, Part, Table
from dockmagic.views.units import shorten
from dockmagic.views.view import View


class Explanation(View):
    """`told` is the engine's answer to POST /dockmagic/explain."""

    def __init__(self, told: dict[str, Any], caption: str = "Dockerfile") -> None:
        self.data = told
        super().__init__(*parts(told, caption))


def parts(told: dict[str, Any], caption: str) -> list[Part]:
    findings = told["findings"]
    marked = {finding["line"] for finding in findings}
    rows: list[list[str | Cell]] = [
        [
            Cell(f"{step['line']} !", "warn") if step["line"] in marked else str(step["line"]),
            shorten(step["instruction"], INSTRUCTION_WIDTH),
            step["does"],
        ]
        for step in told["steps"]
    ]
    columns = [Column("Line", whole=True), Column("Instruction", code=True), Column("What it does")]
    picture: list[Part] = [Table(caption, columns, rows)]
    if told["skipped"]:
        picture.append(Note(f"Not built, for nothing needs it: {', '.join(told['skipped'])}."))
    return [*picture, _findings(findings) if findings else Note("✓ Every check passes.", "good")]


def _findings(findings: list[dict[str, Any]]) -> Table:
    count = "One thing" if len(findings) == 1 else f"{len(findings)} things"
    rows: list[list[str | Cell]] = [
        [
            Cell(f"{finding['line']} !", "warn"),
            finding["rule"],
            finding["reason"],
            finding["fix"],
        ]
        for finding in findings
    ]
    columns = [Column("Line", whole=True), Column("Check", whole=True), Column("Why"), Column("Better")]
    return Table(f"{count} could be better", columns, rows)
