"""What COPY and ADD take: the entries of their sources, for copying and for their checksum alike.

So the cache key is of exactly what would be copied. The order is that of a layer's tar: what a directory has,
by name, then its subdirectories by name, each followed by its own. What is known of the context's files
(`storage.written`) is asked for, a directory at a time, before any of them is opened.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dockmagic_runtime.build.context import Source, folder
from dockmagic_runtime.build.ignore import Ignore
from dockmagic_runtime.storage import overlayform, tar
from dockmagic_runtime.storage.written import File

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {file_type: kind for kind, file_type in tar.FILE_TYPES.items()}
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Reading:
    """How sources are read: `mode` for all instead of their own; `owners`, with extended attributes, too,
    as of another image's files; what `exclude` matches, relative to its source, is left out."""

    mode: int | None = None
    owners: bool = False
    exclude: Ignore | None = None

    @property
    def as_they_are(self) -> bool:
        """Whether a file of the context looks in the image as it does there, if root is to own it."""
        return self.mode is None and not self.owners


PLAIN = Reading()


class FileContent(NamedTuple):
    """The bytes of a file, when they are asked for; `known` is what can be told of it unread."""

    directory: int
    name: bytes
    known: File | None = None

    def digest(self) -> bytes:
        if self.known:
            return self.known.digest
        content = hashlib.sha256()
        for data in self.content():
            content.update(data)
        return content.digest()

    def content(self) -> Iterator[memoryview]:
        fd = os.open(self.name, _FILE, dir_fd=self.directory)
        try:
            while data := os.read(fd, _CHUNK):
                yield memoryview(data)
        finally:
            os.close(fd)

    def whole(self) -> bytes:
        if self.known and self.known.content is not None:
            return self.known.content
        return b"".join(self.content())


class Directory(NamedTuple):
    """What is taken of one directory: the names in it, each with its entry, or a File where that says it all.

    `above` is what goes before the names, with a slash. The descriptor is open until the next is asked for.
    """

    descriptor: int
    above: bytes
    found: list[tuple[bytes, File | tar.Entry]]


def entries(source: Source, reading: Reading = PLAIN) -> Iterator[tuple[tar.Entry, FileContent]]:
    """The entries of a source, named relative to it (a file by its own name). Sockets are left out."""
    for directory, above, found in _Walk(source, reading):
        for name, item in found:
            if isinstance(item, File):
                yield item.entry(above + name), FileContent(directory, name, item)
            else:
                yield item, FileContent(directory, name)


def checksum(sources: Sequence[Source], reading: Reading = PLAIN) -> str:
    """Of everything that a COPY of `sources` depends on: names, kinds, modes, contents, and not times."""
    total = hashlib.sha256()
    for source in sources:
        total.update(b"D" if source.is_directory else b"F")
        total.update(os.fsencode(source.below) + b"\0" if source.below else b"")
        for directory, above, found in _Walk(source, reading):
            parts: list[bytes] = []
            for name, item in found:
                if isinstance(item, File):
                    parts += above, name, _PLAIN_FILE % item[:4], item.digest
                else:
                    parts.append(_identity(item))
                    if item.kind == tar.REGULAR:
                        parts.append(FileContent(directory, name).digest())
            total.update(b"".join(parts))
    return total.hexdigest()


class _Walk:
    """The directories of a source, each before those in it; a source that is a file alone in its own."""

    def __init__(self, source: Source, reading: Reading) -> None:
        self._source, self._reading = source, reading
        self._first_names: dict[tuple[int, int], bytes] = {}

    def __iter__(self) -> Iterator[Directory]:
        source = self._source
        if not source.is_directory:
            found, _ = self._taken(source.directory, b"", [(source.name, self._known())], source.called)
            yield Directory(source.directory, b"", found)
            return
        pending = [b""]
        while pending:
            path = pending.pop()
            above = path + b"/" if path else b""
            fd = folder(source.directory, os.fsdecode(path))
            try:
                found, below = self._taken(fd, above, self._listed(fd))
                yield Directory(fd, above, found)
            finally:
                os.close(fd)
            pending += [above + name for name in reversed(below)]

    def _listed(self, directory: int) -> list[tuple[bytes, File | None]]:
        told = self._source.written.listed(directory)
        return told if told is not None else [(name, None) for name in sorted(overlayform.names(directory))]

    def _known(self) -> File | None:
        """Of a source that is a file."""
        source = self._source
        # What was found by a link is called as that.
        return source.written.file(source.directory, source.name) if source.called == source.name else None

    def _taken(
        self, directory: int, above: bytes, listed: list[tuple[bytes, File | None]], called: bytes = b""
    ) -> tuple[list[tuple[bytes, File | tar.Entry]], list[bytes]]:
        """What to take of what a directory has; and the directories in it where there may be more."""
        mode, exclude = self._reading.mode, self._reading.exclude
        found: list[tuple[bytes, File | tar.Entry]] = []
        below: list[bytes] = []
        for name, file in listed:
            as_name = above + (called or name)
            excluded = exclude is not None and exclude.excludes(os.fsdecode(as_name))
            if file:
                if not excluded:
                    found.append((name, file if mode is None else file._replace(mode=mode)))
                continue
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) and not (excluded and exclude and not exclude.takes_back):
                below.append(name)
            if not excluded and (entry := self._entry(directory, name, as_name, status)):
                found.append((name, entry))
        return found, below

    def _entry(self, directory: int, name: bytes, as_name: bytes, status: os.stat_result) -> tar.Entry | None:
        """None for a socket. Where owners count, a second name of one file becomes a link to the first: in
        busybox' /bin one file has 400."""
        reading = self._reading
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return None
        permissions = stat.S_IMODE(status.st_mode) if reading.mode is None else reading.mode
        entry = tar.Entry(as_name, kind, permissions, mtime_ns=status.st_mtime_ns)
        if kind == tar.REGULAR:
            entry.size = status.st_size
        elif kind == tar.SYMLINK:
            entry.link = os.readlink(name, dir_fd=directory)
        elif kind in (tar.CHARACTER, tar.BLOCKDEV):
            entry.device = os.major(status.st_rdev), os.minor(status.st_rdev)
        if reading.owners:
            entry.uid, entry.gid = status.st_uid, status.st_gid
            if kind in (tar.REGULAR, tar.DIRECTORY):
                entry.xattrs = _xattrs(directory, name, _FILE if kind == tar.REGULAR else _FOLDER)
            if kind == tar.REGULAR and status.st_nlink > 1:
                first = self._first_names.setdefault((status.st_dev, status.st_ino), as_name)
                if first != as_name:
                    return tar.Entry(as_name, tar.HARDLINK, entry.mode, link=first)
        return entry


def _xattrs(directory: int, name: bytes, flags: int) -> dict[bytes, bytes]:
    fd = os.open(name, flags, dir_fd=directory)
    try:
        return overlayform.portable_xattrs(fd)
    finally:
        os.close(fd)


def _identity(entry: tar.Entry) -> bytes:
    """All of an entry but its time, and so that no two say the same: names have no NUL, numbers no comma."""
    attributes = b""
    for key, value in sorted(entry.xattrs.items()):
        attributes += b"%b\0%d,%b" % (key, len(value), value)
    numbers = (entry.mode, entry.uid, entry.gid, entry.size, *entry.device, len(attributes))
    return b"%b\0%b\0%b,%o,%d,%d,%d,%d,%d\0%d,%b" % (
        *(entry.name, entry.link, entry.kind, *numbers, attributes),
    )


_PLAIN_FILE = b"\0\0%b,%%o,%%d,%%d,%%d,0,0\0000," % tar.REGULAR
"""The same for a regular file that is known, without its name."""
