"""What a container wrote: its json-file log, read back whole, from the end, or as it grows.

One line of the file is `{"log": "…\\n", "stream": "stdout", "time": "…"}` (Docker's json-file driver). The
shim appends; we only read. Following waits for inotify(7) events on the file's directory and ends when the
container does.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dockmagic_runtime import timestamps
from dockmagic_runtime.kernel.inotify import Watch

_BLOCK = 1 << 16


@dataclass(frozen=True)
class LogQuery:
    """`docker logs` options; times in nanoseconds since the epoch, 0 for none; `tail` None for all."""

    stdout: bool = True
    stderr: bool = True
    tail: int | None = None
    since: int = 0
    until: int = 0
    timestamps: bool = False
    details: str = ""


@dataclass(frozen=True)
class Entry:
    stream: str  # stdout or stderr
    data: bytes


def read(path: Path, query: LogQuery, end: int | None = None) -> Iterator[Entry]:
    """The entries of the log and of its rotated predecessors, oldest first.

    `end` is where to stop in the newest file; by default the end of its last whole line.
    """
    files = _generations(path)
    if not files or query.tail == 0:
        return
    newest = _end_of_last_line(path) if end is None else end
    if query.tail is None:
        for file in files:
            yield from _select(_lines(file, newest if file == path else None), query)
        return
    wanted: list[bytes] = []
    for file in reversed(files):
        wanted = _last_lines(file, query.tail - len(wanted), newest if file == path else None) + wanted
        if len(wanted) >= query.tail:
            break
    yield from _select(iter(wanted), query)


async def follow(path: Path, query: LogQuery, ended: "asyncio.Future[int]") -> AsyncIterator[Entry]:
    """First what `read` gives, then every new entry, until `ended` is done and all is read."""
    path.touch()
    with Watch(path.parent) as watch:
        file = path.open("rb")
        try:
            start = file.seek(_end_of_last_line(path))
            for entry in read(path, query, start):
                yield entry
            rest = b""
            while True:
                over = ended.done()
                chunk = file.read(_BLOCK * 16)
                *lines, rest = (rest + chunk).split(b"\n")
                for entry in _select(iter(lines), query):
                    yield entry
                if chunk:
                    continue
                if _rotated(path, file.fileno()):
                    file.close()
                    file = path.open("rb")
                elif over:
                    return
                else:
                    changed = asyncio.ensure_future(watch.wait())
                    either: set[asyncio.Future[Any]] = {changed, ended}
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                    changed.cancel()
        finally:
            file.close()


def _generations(path: Path) -> list[Path]:
    """`x.log.2`, `x.log.1`, `x.log`: oldest first."""
    # Not glob(), which compiles a pattern: this is on the way of every `docker run`.
    prefix = f"{path.name}."
    numbers = [
        int(number)
        for name in os.listdir(path.parent)  # noqa: PTH208
        if name.startswith(prefix) and (number := name.removeprefix(prefix)).isdigit()
    ]
    older = [path.with_name(f"{path.name}.{number}") for number in sorted(numbers, reverse=True)]
    return older + ([path] if path.exists() else [])


def _select(lines: Iterator[bytes], query: LogQuery) -> Iterator[Entry]:
    for line in lines:
        record = json.loads(line)
        stream = record["stream"]
        if not (query.stdout if stream == "stdout" else query.stderr):
            continue
        if query.since or query.until:
            moment = timestamps.parse(record["time"])
            if moment < query.since or (query.until and moment > query.until):
                continue
        text: str = record["log"]
        if query.details:
            text = f"{query.details} {text}"
        if query.timestamps:
            text = f"{_padded(record['time'])} {text}"
        yield Entry(stream, text.encode("utf-8", "surrogateescape"))


def _padded(time: str) -> str:
    """All nine digits, so that the lines stand in columns, as `docker logs -t` prints them."""
    whole, _, fraction = time.removesuffix("Z").partition(".")
    return f"{whole}.{fraction.ljust(9, '0')}Z"


def _lines(path: Path, end: int | None) -> Iterator[bytes]:
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size if end is None else end
        for line in file:
            left -= len(line)
            if left < 0:
                return
            yield line


def _last_lines(path: Path, count: int, end: int | None) -> list[bytes]:
    """The last `count` lines before `end`, read from there backwards."""
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END) if end is None else end
        data = b""
        while position > 0 and data.count(b"\n") <= count:
            step = min(_BLOCK, position)
            position = file.seek(position - step)
            data = file.read(step) + data
    return data.splitlines(keepends=True)[-count:]


def _end_of_last_line(path: Path) -> int:
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        while position > 0:
            step = min(_BLOCK, position)
            file.seek(position - step)
            found = file.read(step).rfind(b"\n")
            if found >= 0:
                return position - step + found + 1
            position -= step
    return 0


def _rotated(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino != os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
