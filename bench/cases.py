"""The builds that other builders are measured at: a Dockerfile's lines and the directory that they read."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.images import text


@dataclass(frozen=True)
class Case:
    """`lines` come after the FROM; `files` are those of the context as they are in it too."""

    what: str
    lines: str
    context: Path
    files: dict[str, bytes]
    nocache: bool


def cases(context: Path) -> Iterator[Case]:
    """One after another; `context` holds the files of the one at hand."""
    steps = "\n".join(f"RUN echo {number} > /{number}" for number in range(6))
    many = {f"files/{number // 100}/{number}": b"x" * 2000 for number in range(5000)}
    large = {f"files/{number}": text(75_000_000) for number in range(4)}
    for what, lines, files, nocache in (
        ("build of 6 RUN steps, no cache", steps, {}, True),
        ("the same from the cache", steps, {}, False),
        ("build with a COPY of 5,000 files", "COPY files /files", many, True),
        ("build with a COPY of 300 MB", "COPY files /files", large, True),
    ):
        context.mkdir()
        for name, data in files.items():
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            (context / name).write_bytes(data)
        yield Case(what, lines, context, files, nocache)
        shutil.rmtree(context)
