"""What was measured, as rows of one table; and how two engines take turns at being measured."""

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from bench.engines import Engine


@dataclass(frozen=True)
class Row:
    """One measured thing. `limit` holds for ours/Docker's where there is a Docker, else for ours alone."""

    what: str
    ours: float
    docker: float | None
    unit: str
    limit: float | None = None
    limit_text: str = ""
    floor: float | None = None

    @property
    def met(self) -> bool | None:
        if self.limit is None:
            return None
        return (self.ours if self.docker is None else self.ours / self.docker) <= self.limit

    def cells(self) -> tuple[str, ...]:
        ratio = "" if self.docker is None else _ratio(self.ours / self.docker)
        verdict = {None: "", True: "met", False: "missed"}[self.met]
        return (
            self.what,
            self._text(self.ours),
            self._text(self.docker),
            ratio,
            self.limit_text,
            verdict,
            self._text(self.floor),
        )

    def _text(self, value: float | None) -> str:
        if value is None:
            return ""
        scale = {"ms": 1e3, "MB": 1e-6, "%": 100.0, "s": 1.0}[self.unit]
        return f"{value * scale:.2f} {self.unit}"


def _ratio(value: float) -> str:
    return f"1/{1 / value:.1f}" if 0 < value < 0.5 else f"{value:.2f}"


def interleaved(engines: tuple[Engine, Engine], times: int, once: Callable[[Engine], float]) -> list[float]:
    """The median of each engine; the two take turns, and so does who goes first.

    What one leaves the kernel to write to its disk, it writes before the other's turn.
    """
    taken: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for engine in engines:
        once(engine)  # not counted: first-time costs
    for turn in range(times):
        for engine in engines if turn % 2 == 0 else engines[::-1]:
            os.sync()
            taken[engine.name].append(once(engine))
    return [statistics.median(taken[engine.name]) for engine in engines]


def table(rows: list[Row]) -> str:
    head = ("what (median)", "ours", "Docker", "ratio", "target", "", "docker-py alone")
    cells = [head, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = []
    for line in cells:
        first = line[0].ljust(widths[0])
        lines.append(
            "  ".join([first, *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))])
        )
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(line.rstrip() for line in lines)
