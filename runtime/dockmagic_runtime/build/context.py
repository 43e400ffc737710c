"""What a build reads: the client's context, an earlier stage, another image; each a directory tree.

A Tree finds the sources of COPY and ADD in it and gives their entries, for copying and for their checksum
alike, so that the cache key is of exactly what would be copied. Paths are resolved inside the tree only.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dockmagic_runtime.build.ignore import Ignore, component
from dockmagic_runtime.errors import InvalidParameter, SystemFailure
from dockmagic_runtime.kernel import paths, trees
from dockmagic_runtime.storage import overlayform, tar
from dockmagic_runtime.storage.compression import decompress
from dockmagic_runtime.storage.overlay import Rootfs, mount_rootfs
from dockmagic_runtime.storage.unpack import Unpacker
from dockmagic_runtime.storage.written import File, Written

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {file_type: kind for kind, file_type in tar.FILE_TYPES.items()}
_CHUNK = 1 << 20
_WILDCARD = re.compile(r"[*?[\\]")


@dataclass(frozen=True)
class Context:
    """The client's files, unpacked: the build's own, and never changed. `written` tells of them."""

    path: Path
    written: Written


class FileContent(NamedTuple):
    """The bytes of a file, when they are asked for; `known` is what can be told of them unread.

    `shared` is which file it is (device, inode), if it has other names besides.
    """

    directory: int
    name: bytes
    known: File | None = None
    shared: tuple[int, int] | None = None

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


@dataclass(frozen=True)
class Source:
    """One thing to copy: `name` in `directory` (a descriptor). Of a directory the contents are meant.

    `below` are the directories above it that are to be kept (`COPY --parents`), relative. `called` is what a
    link to it is called that was named. `written` tells of files that need not be read.
    """

    directory: int
    name: bytes
    is_directory: bool
    below: str = ""
    called: bytes = b""
    written: Written = field(default_factory=Written, repr=False)


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


def unpack_context(stream: BinaryIO, directory: Path, limit: int | None = None) -> Context:
    """A context tar, compressed or not, into the new `directory`. Raises InvalidParameter.

    `limit`: bytes of the unpacked tar; one that says more is taken for a bomb.
    """
    directory.mkdir(parents=True)
    written = Written()
    with (
        paths.opened(directory, _DIRECTORY) as root,
        decompress(stream) as plain,
        Unpacker(root, owner=(0, 0), written=written) as unpacker,
    ):
        reader = tar.TarReader(tar.chunks_of(plain.read, limit=limit))
        for entry in reader:
            # Of the client's files a build has contents and modes: then a layer may link to them.
            entry.xattrs = {}
            unpacker.add(entry, reader)
        unpacker.finish()
        while plain.read(_CHUNK):
            pass  # what fills the archive's last record: a client wants to be rid of it
    return Context(directory, written)


def read_text(directory: Path, name: str) -> str | None:
    """A small file of the context, or None. Raises InvalidParameter for what leads out or is no text."""
    with paths.opened(directory, _DIRECTORY) as root:
        try:
            fd = paths.open_in_root(root, name, os.O_RDONLY | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with os.fdopen(fd, "rb") as file:
            try:
                return file.read(1 << 22).decode()
            except UnicodeDecodeError:
                raise InvalidParameter(f"{name} is not UTF-8 text") from None


def drop_ignored(context: Context, ignore: Ignore) -> None:
    """Delete what `.dockerignore` excludes."""
    directory = context.path
    with paths.opened(directory, _DIRECTORY) as root:
        pending = [""]
        undecided: list[str] = []
        while pending:
            path = pending.pop()
            fd = paths.openat2(root, path or ".", _DIRECTORY, paths.RESOLVE_NO_SYMLINKS)
            try:
                for name in overlayform.names(fd):
                    child = f"{path}/{os.fsdecode(name)}" if path else os.fsdecode(name)
                    is_directory = stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
                    excluded = ignore.excludes(child)
                    if excluded and not (is_directory and ignore.takes_back):
                        trees.remove_at(fd, name)
                        context.written.forget()
                    elif is_directory:
                        pending.append(child)
                        undecided += [child] if excluded else []
            finally:
                os.close(fd)
        # An excluded directory stays only for what was taken back in it. Children come after their parents.
        for path in reversed(undecided):
            with suppress(OSError):
                (directory / path).rmdir()


@contextmanager
def tree(context: Context, rootfs: Rootfs | None) -> Iterator["Tree"]:
    """Where a step reads: the context, or the read-only tree of a stage or an image."""
    if rootfs is None:
        root = os.open(context.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        try:
            root = mount_rootfs(rootfs)
        except OSError as error:
            raise SystemFailure(f"cannot mount the layers: {error.strerror}") from error
    try:
        with Tree(root, context.written if rootfs is None else None) as found:
            yield found
    finally:
        os.close(root)


class Tree:
    """A directory tree to copy from; a context manager, as it keeps descriptors open."""

    def __init__(self, root: int, written: Written | None = None) -> None:
        self._written = written or Written()
        self._root = os.open(".", _DIRECTORY, dir_fd=root)
        self._opened = [self._root]

    def __enter__(self) -> "Tree":
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._opened:
            with suppress(OSError):
                os.close(fd)

    def find(self, pattern: str, *, parents: bool = False) -> list[Source]:
        """What a source argument names, wildcards expanded, by name. Raises InvalidParameter if nothing.

        With `parents` a source keeps its path, from `/./` on if that is in it, and `**` is a wildcard too.
        """
        parts: list[str] = []
        for part in pattern.split("/"):
            if part == "..":  # above the top is the top
                parts = parts[:-1]
            elif part not in ("", "."):
                parts.append(part)
        found = [""]
        for part in parts:
            if part == "**" and parents:
                found = [below for above in found for below in self._below(above)]
            elif _WILDCARD.search(part):
                found = [match for above in found for match in self._matching(above, part)]
            else:
                found = [f"{above}/{part}" for above in found]
        dropped = _pivot(pattern) if parents else 0
        sources: list[Source] = []
        for path in dict.fromkeys(found):
            if source := self._source(path):
                kept = path.strip("/").split("/")[dropped:] if parents else []
                below = "/".join(kept if source.is_directory else kept[:-1])
                sources.append(replace(source, below=below))
        # Where a pattern matches nothing there is nothing to copy: `COPY package.json yarn.lock* ./`.
        if not sources and not _WILDCARD.search(pattern):
            raise InvalidParameter(
                "file not found in build context or excluded by .dockerignore:"
                f" stat {pattern}: file does not exist"
            )
        return sources

    def _below(self, above: str) -> list[str]:
        """A directory and all directories in it."""
        found = [above]
        for path in found:
            found += [
                child
                for child in self._matching(path, "*")
                if (source := self._source(child)) and source.is_directory
            ]
        return found

    def _matching(self, above: str, pattern: str) -> list[str]:
        try:
            fd = paths.open_in_root(self._root, above or "/", _DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            wanted = re.compile(component(pattern), re.DOTALL)
            names = sorted(os.fsdecode(name) for name in overlayform.names(fd))
            return [f"{above}/{name}" for name in names if wanted.fullmatch(name)]
        finally:
            os.close(fd)

    def _source(self, path: str) -> Source | None:
        """A link that is named itself is followed, inside the tree."""
        try:
            fd = paths.open_in_root(self._root, path or "/", os.O_PATH)
            try:
                is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
                real = Path(f"/proc/self/fd/{fd}").readlink()
            finally:
                os.close(fd)
            if is_directory:
                directory = paths.open_in_root(self._root, path or "/", _DIRECTORY)
                self._opened.append(directory)
                return Source(directory, os.fsencode(Path(path).name), True, written=self._written)
            top = Path(f"/proc/self/fd/{self._root}").readlink()
            above = real.relative_to(top).parent
            directory = paths.open_in_root(self._root, str(above), _DIRECTORY)
            self._opened.append(directory)
            called = os.fsencode(Path(path).name)
            return Source(directory, os.fsencode(real.name), False, called=called, written=self._written)
        except (FileNotFoundError, NotADirectoryError):
            return None


Found = tuple[tar.Entry, FileContent]


def entries(source: Source, reading: Reading = PLAIN) -> Iterator[Found]:
    """The entries of a source, named relative to it (a file by its own name). Sockets are left out."""
    if source.is_directory:
        found = _inside(source.directory, b"", reading, source.written)
        yield from _linked(found) if reading.owners else found
    else:
        name = source.called or source.name
        inode = os.stat(source.name, dir_fd=source.directory, follow_symlinks=False).st_ino
        yield from _entry(source.directory, source.name, inode, name, reading, source.written)


def _linked(found: Iterator[Found]) -> Iterator[Found]:
    """The names of one file as hard links to the first of them: /bin of busybox is one file 400 times."""
    first: dict[tuple[int, int], bytes] = {}
    for entry, file in found:
        name = first.setdefault(file.shared, entry.name) if file.shared else entry.name
        if name != entry.name:
            entry = tar.Entry(entry.name, tar.HARDLINK, entry.mode, link=name)
        yield entry, file


def _inside(directory: int, above: bytes, reading: Reading, written: Written) -> Iterator[Found]:
    """The entries in a directory, which is itself called `above`, with a slash."""
    plain = reading == PLAIN
    for name, inode in overlayform.inodes(directory):
        if plain and (file := written.get(inode)):
            yield file.entry(above + name), FileContent(directory, name, file)
        else:
            yield from _entry(directory, name, inode, above + name, reading, written)


def _entry(
    directory: int, name: bytes, inode: int, as_name: bytes, reading: Reading, written: Written
) -> Iterator[Found]:
    excluded = reading.exclude is not None and reading.exclude.excludes(os.fsdecode(as_name))
    if (file := written.get(inode)) and not reading.owners:
        if not excluded:
            entry = file.entry(as_name)
            if reading.mode is not None:
                entry.mode = reading.mode
            yield entry, FileContent(directory, name, file)
        return
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return
    if excluded and not (kind == tar.DIRECTORY and reading.exclude and reading.exclude.takes_back):
        return
    permissions = stat.S_IMODE(status.st_mode) if reading.mode is None else reading.mode
    entry = tar.Entry(as_name, kind, permissions, size=status.st_size, mtime_ns=status.st_mtime_ns)
    if reading.owners:
        entry.uid, entry.gid = status.st_uid, status.st_gid
    if kind == tar.SYMLINK:
        entry.link = os.readlink(name, dir_fd=directory)
    elif kind in (tar.CHARACTER, tar.BLOCKDEV):
        entry.device = os.major(status.st_rdev), os.minor(status.st_rdev)
    if kind == tar.REGULAR and reading.owners:
        entry.xattrs = _xattrs(directory, name, _FILE)
    if kind != tar.DIRECTORY:
        shared = (status.st_dev, status.st_ino) if kind == tar.REGULAR and status.st_nlink > 1 else None
        if kind != tar.REGULAR:
            entry.size = 0
        yield entry, FileContent(directory, name, shared=shared)
        return
    entry.size = 0
    if reading.owners:
        entry.xattrs = _xattrs(directory, name, _DIRECTORY | os.O_NOFOLLOW)
    if not excluded:
        yield entry, FileContent(directory, name)
    fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        yield from _inside(fd, as_name + b"/", reading, written)
    finally:
        os.close(fd)


def _xattrs(directory: int, name: bytes, flags: int) -> dict[bytes, bytes]:
    fd = os.open(name, flags, dir_fd=directory)
    try:
        return overlayform.portable_xattrs(fd)
    finally:
        os.close(fd)


def checksum(sources: Sequence[Source], reading: Reading = PLAIN) -> str:
    """Of everything that a COPY of `sources` depends on: names, kinds, modes, contents, and not times."""
    total = hashlib.sha256()
    for source in sources:
        total.update(b"D" if source.is_directory else b"F")
        total.update(os.fsencode(source.below) + b"\0" if source.below else b"")
        for entry, file in entries(source, reading):
            identity = _identity(entry)
            total.update(identity + file.digest() if entry.kind == tar.REGULAR else identity)
    return total.hexdigest()


def _identity(entry: tar.Entry) -> bytes:
    """All of an entry but its time, and so that no two say the same: names have no NUL, numbers no comma."""
    attributes = b""
    for key, value in sorted(entry.xattrs.items()):
        attributes += b"%b\0%d,%b" % (key, len(value), value)
    numbers = (entry.mode, entry.uid, entry.gid, entry.size, *entry.device, len(attributes))
    return b"%b\0%b\0%b,%o,%d,%d,%d,%d,%d\0%d,%b" % (
        *(entry.name, entry.link, entry.kind, *numbers, attributes),
    )


def _pivot(pattern: str) -> int:
    """How many components stand before `/./`."""
    before, found, _ = pattern.removeprefix("./").partition("/./")
    return len([part for part in before.split("/") if part]) if found else 0
