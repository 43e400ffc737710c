"""A container's log as Docker's json-file driver writes it.

One line of the file per line of output: `{"log":"…\\n","stream":"stdout","time":"…"}`. A line longer than
16 KiB is split, and the end of the output need not be a whole line: those pieces have no `\\n` in `log`.
Bytes that are not UTF-8 are kept as lone surrogates (Python's surrogateescape), so the log can give back
exactly what was written.
"""

import contextlib
import json
import os
import time

LINE_LIMIT = 16 * 1024


class JsonLog:
    """Appends to `path`. `max_size` (bytes) starts a new file, keeping `max_file` files in all."""

    def __init__(self, path: str, max_size: int | None = None, max_file: int = 1):
        self._path, self._max_size, self._max_file = path, max_size, max(1, max_file)
        self._partial: dict[str, bytes] = {}
        self._second, self._stamp = 0, ""
        self._fd = -1
        self._size = 0
        self.failed: str | None = None
        self._open()

    def write(self, stream: str, data: bytes) -> None:
        """Log what `stream` gave; the piece after the last newline waits for its end."""
        data = self._partial.pop(stream, b"") + data
        start, entries = 0, []
        prefix, suffix = '{"log":', f',"stream":"{stream}","time":"{self._now()}"}}\n'
        while start < len(data):
            end = data.find(b"\n", start, start + LINE_LIMIT) + 1
            if not end:
                if len(data) - start < LINE_LIMIT:
                    self._partial[stream] = data[start:]
                    break
                end = start + LINE_LIMIT
            entries.append(prefix + json.dumps(data[start:end].decode("utf-8", "surrogateescape")) + suffix)
            start = end
        if entries:
            # Without a limit all lines go in one call; with one, each may be the first of a new file.
            for lines in entries if self._max_size else ("".join(entries),):
                self._append(lines.encode())

    def finish(self, stream: str) -> None:
        """The stream has ended: what has no newline is logged without one."""
        data = self._partial.pop(stream, b"")
        if data:
            text = json.dumps(data.decode("utf-8", "surrogateescape"))
            self._append(f'{{"log":{text},"stream":"{stream}","time":"{self._now()}"}}\n'.encode())

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, lines: bytes) -> None:
        if self._max_size and self._size and self._size + len(lines) > self._max_size:
            self._rotate()
        try:
            # A full disk must not stop the container: these lines are lost, and the shim says so.
            while lines:
                written = os.write(self._fd, lines)
                self._size += written
                lines = lines[written:]
        except OSError as error:
            self.failed = os.strerror(error.errno or 0)

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        os.close(self._fd)
        names = [self._path, *(f"{self._path}.{n}" for n in range(1, self._max_file))]
        if len(names) == 1:
            os.truncate(self._path, 0)
        for older, newer in zip(reversed(names), list(reversed(names))[1:], strict=False):
            with contextlib.suppress(FileNotFoundError):
                os.rename(newer, older)  # noqa: PTH104
        self._open()

    def _now(self) -> str:
        return timestamp()


def timestamp() -> str:
    """Now, in RFC 3339 with nanoseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    t = time.gmtime(seconds)
    date = f"{t.tm_year}-{t.tm_mon:02}-{t.tm_mday:02}T{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}"
    return f"{date}.{nanoseconds:09}Z"
