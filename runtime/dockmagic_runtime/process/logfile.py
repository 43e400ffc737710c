"""A container's log as Docker's json-file driver writes it.

One line of the file per line of output: `{"log":"…\\n","stream":"stdout","time":"…"}`, with `"attrs":{…}`
before the time if the container's log options ask for some. A line longer than 16 KiB is split, and the end
of the output need not be a whole line: those pieces have no `\\n` in `log`. Bytes that are not UTF-8 are kept
as lone surrogates (Python's surrogateescape), so the log can give back exactly what was written.

All lines that were read together are encoded together: the output as one JSON string, in which every
newline is then replaced by the end of one entry and the beginning of the next.

Full files are `x.log.1`, `x.log.2`, …, the oldest last. Those who follow the log are passed each new file as
it is begun. With `compress` a child of ours makes each full one a gzip file (`x.log.1.gz`); the next rotation
waits for it.
"""

import contextlib
import json
import os
import socket
import time

from dockmagic_runtime.kernel import libc, namespaces
from dockmagic_runtime.process.messages import rights

LINE_LIMIT = 16 * 1024

_START = '{"log":"'
_BLOCK = 1 << 16
_GZIP = 31  # zlib's window bits of a gzip file


class JsonLog:
    """Appends to `path`. `max_size` (bytes) starts a new file, keeping `max_file` files in all.

    `attrs` is the JSON of what each entry says of the container, if anything.
    """

    def __init__(
        self,
        path: str,
        max_size: int | None = None,
        max_file: int = 1,
        *,
        compress: bool = False,
        attrs: str = "",
    ):
        self._path, self._max_size, self._max_file = path, max_size, max(1, max_file)
        self._compress = compress and self._max_file > 1
        self._attrs = f'"attrs":{attrs},' if attrs else ""
        self._compressor = 0
        self._followers: list[socket.socket] = []
        self._partial: dict[str, bytes] = {}
        self.failed: str | None = None
        self._fd = _open(path)
        self._size = os.fstat(self._fd).st_size
        self._torn = self._size > 0 and not _ends_with_line(path, self._size)

    def write(self, stream: str, data: bytes) -> None:
        """Log what `stream` gave; the piece after the last newline waits for its end."""
        data = self._partial.pop(stream, b"") + data
        end = data.rfind(b"\n") + 1
        stamp = self._stamp(stream)
        if _has_long_line(data, end):
            end = self._write_pieces(data, stamp)
        elif end:
            self._append(_entries(data[:end], stamp))
        if end < len(data):
            self._partial[stream] = data[end:]

    def finish(self, stream: str) -> None:
        """The stream has ended: what has no newline is logged without one."""
        data = self._partial.pop(stream, b"")
        if data:
            self._append(_entry(data, self._stamp(stream)))

    def follow(self, follower: socket.socket) -> None:
        """From now on pass it each new file of this log, by descriptor."""
        follower.setblocking(False)
        self._followers.append(follower)

    def close(self) -> None:
        self._await_compressor()
        while self._followers:
            self._followers.pop().close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write_pieces(self, data: bytes, stamp: str) -> int:
        """One entry at a time, long lines in pieces; how much of `data` that was."""
        start = 0
        while start < len(data):
            end = data.find(b"\n", start, start + LINE_LIMIT) + 1
            if not end:
                if len(data) - start < LINE_LIMIT:
                    break
                end = start + LINE_LIMIT
            self._append(_entry(data[start:end], stamp))
            start = end
        return start

    def _stamp(self, stream: str) -> str:
        """The end of an entry, after the text."""
        return f'","stream":"{stream}",{self._attrs}"time":"{timestamp()}"}}\n'

    def _append(self, lines: bytes) -> None:
        while self._max_size and self._size + len(lines) > self._max_size:
            # As Docker: the entry that reaches the limit is the last of its file.
            fitting = lines.find(b"\n", max(0, self._max_size - self._size - 1)) + 1
            if self._size < self._max_size:
                self._put(lines[:fitting])
                lines = lines[fitting:]
            if not lines:
                return
            try:
                self._rotate()
            except OSError as error:
                self.failed = os.strerror(error.errno or 0)
                break
        self._put(lines)

    def _put(self, lines: bytes) -> None:
        if self._torn:
            lines = b"\n" + lines
        try:
            # A full disk must not stop the container: these lines are lost, and the shim says so.
            while lines:
                self._torn = True
                written = os.write(self._fd, lines)
                self._size += written
                lines = lines[written:]
            self._torn = False
        except OSError as error:
            self._size += len(lines)
            self.failed = os.strerror(error.errno or 0)

    def _rotate(self) -> None:
        """Readers keep what they have open: a file is renamed or replaced, never truncated.

        Raises OSError, with nothing changed, if there can be no new file.
        """
        self._await_compressor()
        fresh = _open(f"{self._path}.new")
        ending = ".gz" if self._compress else ""
        last = 1
        while last < self._max_file - 1 and os.path.exists(f"{self._path}.{last}{ending}"):  # noqa: PTH110
            last += 1
        for number in range(last if self._max_file > 1 else 0, 0, -1):
            older = f"{self._path}.{number - 1}{ending}" if number > 1 else self._path
            newer = f"{self._path}.{number}{ending if number > 1 else ''}"
            with contextlib.suppress(FileNotFoundError):
                os.rename(older, newer)  # noqa: PTH104
        os.rename(f"{self._path}.new", self._path)  # noqa: PTH104
        os.close(self._fd)
        self._fd, self._size, self._torn = fresh, 0, False
        for follower in list(self._followers):
            self._tell(follower)
        if self._compress:
            self._compressor = _compress(f"{self._path}.1")

    def _tell(self, follower: socket.socket) -> None:
        try:
            follower.sendmsg([b"+"], rights([self._fd]))
        except OSError:
            # Gone, or so slow that some hundred files wait for it: it must do with what it finds.
            self._followers.remove(follower)
            follower.close()

    def _await_compressor(self) -> None:
        if self._compressor:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._compressor, 0)
            self._compressor = 0


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _ends_with_line(path: str, size: int) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    last = os.pread(fd, 1, size - 1)
    os.close(fd)
    return last == b"\n"


def _has_long_line(data: bytes, end: int) -> bool:
    """Whether some line of `data` reaches the limit; `end` is where its last whole line ends."""
    start = 0
    while end - start > LINE_LIMIT:
        newline = data.rfind(b"\n", start, start + LINE_LIMIT)
        if newline < 0:
            return True
        start = newline + 1
    return len(data) - end >= LINE_LIMIT


def _entry(text: bytes, stamp: str) -> bytes:
    return (_START + json.dumps(text.decode("utf-8", "surrogateescape"))[1:-1] + stamp).encode()


def _entries(lines: bytes, stamp: str) -> bytes:
    """Many whole lines at once."""
    text = json.dumps(lines.decode("utf-8", "surrogateescape"))[1:-1]
    between = "\\n" + stamp + _START
    # An escaped backslash before an n is no newline: the pairs are kept out of the way.
    text = "\\\\".join([part.replace("\\n", between) for part in text.split("\\\\")])
    return (_START + text).encode()[: -len(_START)]


def _compress(path: str) -> int:
    """Start a child that makes `path` a gzip file; its pid."""
    import zlib

    try:
        pid, pidfd = namespaces.clone(0)
    except OSError:
        return 0  # no more processes: it stays as it is
    if pid:
        os.close(pidfd)
        return pid
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # Not one descriptor of the shim's: its clients wait for the end of their streams.
        libc.close_all_but({source})
        target = os.open(f"{path}.gz.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        pack = zlib.compressobj(wbits=_GZIP)
        while data := os.read(source, _BLOCK):
            os.write(target, pack.compress(data))
        os.write(target, pack.flush())
        os.rename(f"{path}.gz.new", f"{path}.gz")  # noqa: PTH104
        os.unlink(path)  # noqa: PTH108
    finally:
        os._exit(0)


def timestamp() -> str:
    """Now, in RFC 3339 with nanoseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    t = time.gmtime(seconds)
    date = f"{t.tm_year}-{t.tm_mon:02}-{t.tm_mday:02}T{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}"
    return f"{date}.{nanoseconds:09}Z"
