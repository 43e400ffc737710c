"""What a build reads: the client's context, an earlier stage, another image; each a directory tree.

A Tree finds the sources of COPY and ADD in it (what is in them: see `entries`). Paths are resolved inside the
tree only.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from dockmagic_runtime.build.ignore import Ignore, component
from dockmagic_runtime.errors import InvalidParameter, SystemFailure
from dockmagic_runtime.kernel import paths, trees
from dockmagic_runtime.storage import overlayform, tar
from dockmagic_runtime.storage.compression import decompress
from dockmagic_runtime.storage.overlay import Rootfs, mount_rootfs
from dockmagic_runtime.storage.unpack import Unpacker
from dockmagic_runtime.storage.written import Written

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK = 1 << 20
_WILDCARD = re.compile(r"[*?[\\]")


@dataclass(frozen=True)
class Context:
    """The client's files, unpacked: the build's own, and never changed. `written` tells of them."""

    path: Path
    written: Written


@dataclass(frozen=True)
class Source:
    """One thing to copy: `name` in `directory` (a descriptor). Of a directory the contents are meant.

    `below` are the directories above it that are to be kept (`COPY --parents`), relative. `called` is what a
    link to it is called that was named. `written` tells of files that need not be read. `argument` is the
    instruction's for it.
    """

    directory: int
    name: bytes
    is_directory: bool
    below: str = ""
    called: bytes = b""
    written: Written = field(default_factory=Written, repr=False)
    argument: str = ""


def unpack_context(stream: BinaryIO, directory: Path, limit: int | None = None) -> Context:
    """A context tar, compressed or not, into the new `directory`. Raises InvalidParameter.

    `limit`: bytes of the unpacked tar; one that says more is taken for a bomb.
    """
    directory.mkdir(parents=True)
    written = Written()
    written.made(directory.stat().st_ino)
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


def folder(root: int, path: str) -> int:
    """A descriptor of the directory at `path` in `root`; no link leads there. Raises SystemFailure."""
    try:
        return paths.openat2(root, path or ".", _DIRECTORY, paths.RESOLVE_NO_SYMLINKS)
    except OSError as error:
        raise SystemFailure(f"cannot read {tar.shown(os.fsencode(path))}: {error.strerror}") from error


def drop_ignored(context: Context, ignore: Ignore) -> None:
    """Delete what `.dockerignore` excludes."""
    directory = context.path
    with paths.opened(directory, _DIRECTORY) as root:
        pending = [""]
        undecided: list[str] = []
        while pending:
            path = pending.pop()
            fd = folder(root, path)
            try:
                for name in overlayform.names(fd):
                    child = f"{path}/{os.fsdecode(name)}" if path else os.fsdecode(name)
                    is_directory = stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
                    excluded = ignore.excludes(child)
                    if excluded and not (is_directory and ignore.takes_back):
                        trees.remove_at(fd, name)
                        context.written.gone(fd, name)
                        if is_directory:
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
                context.written.forget()


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


def _pivot(pattern: str) -> int:
    """How many components stand before `/./`."""
    before, found, _ = pattern.removeprefix("./").partition("/./")
    return len([part for part in before.split("/") if part]) if found else 0
