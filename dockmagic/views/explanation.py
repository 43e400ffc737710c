"""A Dockerfile with what each line of it does beside it, and what would better be done otherwise."""

from __future__ import annotations

from typing import Any

from dockmagic.views.layers import INSTRUCTION_WIDTH
from dockmagic.views.parts import Cell, Column, Fold, Note, Part, Table
from dockmagic.views.units import shorten
from dockmagic.views.view import View


class Explanation(View):
    """`told` is the engine's answer to POST /dockmagic/explain; `dockerfile` the text it is about."""

    def __init__(self, told: dict[str, Any], dockerfile: str, caption: str = "Dockerfile") -> None:
        self.data = told
        super().__init__(*parts(told, dockerfile, caption))


def parts(told: dict[str, Any], dockerfile: str, caption: str) -> list[Part]:
    lines = dockerfile.splitlines()
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
    columns = [Column("Line"), Column("Instruction", code=True), Column("What it does")]
    picture: list[Part] = [Table(caption, columns, rows)]
    if told["skipped"]:
        picture.append(Note(f"Not built, for nothing needs it: {', '.join(told['skipped'])}."))
    picture.append(Note(_count(len(findings)), "warn" if findings else "good"))
    for finding in findings:
        line = lines[finding["line"] - 1].strip() if finding["line"] <= len(lines) else ""
        summary = f"! Line {finding['line']}: {finding['rule']}"
        told_lines = [line, f"Why: {finding['reason']}.", f"Better: {finding['fix']}."]
        picture.append(Fold(summary, told_lines, open=True, tone="warn"))
    return picture


def _count(findings: int) -> str:
    if not findings:
        return "✓ Nothing to better: all checks are passed."
    return "One thing could be better:" if findings == 1 else f"{findings} things could be better:"
