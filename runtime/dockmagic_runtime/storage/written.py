"""What was just written, so that it need not be read again.

Who makes directories and fills them (an Unpacker) notes here what is in each of them; who then sums up the
tree that they are in (for the checksum of a COPY, for the diff ID of its layer) asks before reading one.
Directories are known by their inode numbers, so that they may be moved; and only those are that were made
new, and that nobody has put anything into but by noting it. The number of a directory that is gone is soon
another one's. So a Written may tell only of directories that are there:

    - one is for the context of a build, one above it for each step, and goes with the step;
    - where directories of it may go, it forgets them all: when one is replaced, when `.dockerignore` drops
      some, when the last COPY has taken them into a layer that may turn out to be here already.

Contents are kept of small files, within a limit for all of them together: opening a file takes longer than
reading a small one, and of large ones the system keeps what it has memory for.
"""

import os
from operator import itemgetter
from typing import NamedTuple, TypeAlias

from dockmagic_runtime.storage import tar

SMALL = 64 << 10
"""Bytes of the largest file whose content is kept."""
_ROOM = 64 << 20
_NAME = itemgetter(0)


class File(NamedTuple):
    """A regular file: what its inode says, the SHA-256 of its content, and the content where it is kept.

    `shared` is which file it is (device, inode), if it has other names besides.
    """

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    digest: bytes
    content: bytes | None
    shared: tuple[int, int] | None = None

    def entry(self, name: bytes) -> tar.Entry:
        return tar.Entry(name, tar.REGULAR, self.mode, self.uid, self.gid, self.size, self.mtime_ns)


Listing: TypeAlias = dict[bytes, File | None]
"""All that a directory has, by name. None: whoever wants to know must look. That is so of everything but
regular files, and of those with attributes, holes or names besides."""


class Written:
    """Directories by inode number, all of one file system. Safe to use from several threads."""

    def __init__(self, below: "Written | None" = None, *, room: int = _ROOM) -> None:
        """`below` is asked for what this has not. `room`: bytes of all contents that are kept."""
        self._listings: dict[int, Listing] = {}
        self._below = below
        self._room = room

    def made(self, inode: int) -> None:
        """A directory that is new and empty."""
        self._listings[inode] = {}

    def listing(self, inode: int) -> Listing | None:
        """Where to note what is put into a directory; None: nowhere."""
        return self._listings.get(inode)

    def listed(self, directory: int) -> list[tuple[bytes, File | None]] | None:
        """What an open directory has, by name; None if it has to be read."""
        found = self._found(directory)
        return None if found is None else sorted(found.items(), key=_NAME)

    def file(self, directory: int, name: bytes) -> File | None:
        """A file in an open directory; None if nothing is known of it."""
        found = self._found(directory)
        return found.get(name) if found else None

    def _found(self, directory: int) -> Listing | None:
        found = self._listings.get(os.fstat(directory).st_ino) if self._listings else None
        return self._below._found(directory) if found is None and self._below else found

    def gone(self, directory: int, name: bytes) -> None:
        """An open directory has no such name any more. If that was a directory, and removed: `forget`."""
        if (found := self._found(directory)) is not None:
            found.pop(name, None)

    def kept(self, content: bytes) -> bytes | None:
        """The content, if there is room for it."""
        self._room -= len(content)
        return content if self._room >= 0 else None

    def forget(self) -> None:
        """Tell of nothing any more: directories of it are gone, or soon may be."""
        self._listings.clear()
