"""The files of one container's log, as the shim leaves them: the newest, `x.log.1`, `x.log.2.gz`, ….

They are opened, and from then on it does not matter what becomes of their names: the shim renames and
replaces files, it never truncates one.
"""

import contextlib
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_BLOCK = 1 << 18
_TRIES = 20
_GZIP = 31  # zlib's window bits of a gzip file


class LogFiles:
    """All files of the log at `path`, oldest first; with `tail` only so many lines before the end.

    The newest stays open and can be read further, and on in others.
    """

    def __init__(self, path: Path, tail: int | None = None) -> None:
        self._path = path
        self._files = _open_all(path)
        # What is being written now ends, for a reader that does not follow, with its last whole line.
        self._end = self._files[-1].end_of_lines() if self._files else 0
        if tail is not None:
            self._skip_all_but(tail)

    def __enter__(self) -> "LogFiles":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    @property
    def size(self) -> int:
        """About how many bytes there are to read."""
        return sum(file.size - file.position for file in self._files)

    def blocks(self) -> Iterator[bytes]:
        """Whole lines from the position on, of what was there at the start."""
        for file in self._files:
            yield from file.blocks(self._end if file is self._files[-1] else None)

    def rest(self) -> Iterator[bytes]:
        """Whole lines of all there is now that has not been read yet."""
        while self._files:
            more = len(self._files) > 1
            yield from self._files[0].blocks()
            if not more:
                return
            self._files.pop(0).close()

    def add(self, file: "LogFile") -> None:
        """The log goes on in `file`, unless that is known already."""
        if any(file.is_same(known) for known in self._files):
            file.close()
        else:
            self._files.append(file)

    def look(self) -> None:
        """Add the newest file, by its name."""
        with contextlib.suppress(FileNotFoundError):
            self.add(LogFile(str(self._path)))

    def _skip_all_but(self, count: int) -> None:
        for number in reversed(range(len(self._files))):
            newest = number == len(self._files) - 1
            count -= self._files[number].seek_last(count, self._end if newest else None)
            if count <= 0:
                for file in self._files[:number]:
                    file.close()
                del self._files[:number]
                return


class LogFile:
    """One file, open, with a position: `blocks` goes on where it has stopped."""

    def __init__(self, path: str) -> None:
        """Raises FileNotFoundError."""
        self._path = path
        self._file: BinaryIO = open(path, "rb")  # noqa: PTH123, SIM115 - no pattern, no Path: it is on every run's way
        self._packed = path.endswith(".gz")
        self._inode = os.fstat(self._file.fileno()).st_ino
        self.position = 0

    def __enter__(self) -> "LogFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def is_same(self, other: "LogFile") -> bool:
        return self._inode == other._inode

    def is_at(self, path: Path) -> bool:
        try:
            return os.stat(path).st_ino == self._inode  # noqa: PTH116
        except FileNotFoundError:
            return False

    def blocks(self, end: int | None = None) -> Iterator[bytes]:
        """Whole lines from the position on, many at a time; up to `end`, or to the last that is complete."""
        self._unpack()
        while True:
            self._file.seek(self.position)
            data = self._file.read(_BLOCK if end is None else min(_BLOCK, end - self.position))
            whole = data.rfind(b"\n") + 1
            if data and not whole:
                # A line longer than a block: up to its end, if that is there yet.
                data += self._file.readline()
                whole = len(data) if data.endswith(b"\n") else 0
            if not whole:
                return
            self.position += whole
            yield data[:whole]

    def seek_last(self, count: int, end: int | None = None) -> int:
        """Set the position `count` lines before `end` (of what is complete); how many there were."""
        self._unpack()
        position = self.end_of_lines() if end is None else end
        found = 0
        while position > 0:
            step = min(_BLOCK, position)
            position -= step
            self._file.seek(position)
            data = self._file.read(step)
            found += data.count(b"\n")
            if found > count:
                # The newline before the first line that is wanted.
                rest = data.split(b"\n", found - count)[-1]
                self.position = position + step - len(rest)
                return count
        self.position = 0
        return found

    def end_of_lines(self) -> int:
        """Where the last whole line ends."""
        self._unpack()
        position = self.size
        while position > 0:
            step = min(_BLOCK, position)
            self._file.seek(position - step)
            newline = self._file.read(step).rfind(b"\n")
            if newline >= 0:
                return position - step + newline + 1
            position -= step
        return 0

    def _unpack(self) -> None:
        """On disk and not in memory; the file has no name and is gone with us."""
        if not self._packed:
            return
        plain = tempfile.TemporaryFile(dir=Path(self._path).parent)  # noqa: SIM115
        unpack = zlib.decompressobj(wbits=_GZIP)
        while data := self._file.read(_BLOCK):
            plain.write(unpack.decompress(data))
        plain.write(unpack.flush())
        plain.flush()
        self._file.close()
        self._file = plain
        self._packed = False


def _open_all(path: Path) -> list[LogFile]:
    """Oldest first."""
    for tries in range(1, _TRIES + 1):
        found: list[LogFile] = []
        while file := _open(path, len(found)):
            found.insert(0, file)
        # Opened newest first: if that still is the newest, nothing was renamed behind our back.
        if not found or found[-1].is_at(path) or tries == _TRIES:
            break
        for file in found:
            file.close()
    return found


def _open(path: Path, number: int) -> LogFile | None:
    name = f"{path}.{number}" if number else str(path)
    # The compressed file is complete before the other one goes.
    for candidate in (name, f"{name}.gz", name) if number else (name,):
        with contextlib.suppress(FileNotFoundError):
            return LogFile(candidate)
    return None
