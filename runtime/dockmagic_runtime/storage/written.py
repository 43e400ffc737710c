"""What was just written, so that it need not be read again.

Who makes regular files (an Unpacker) notes each here; who then sums up the tree that they are in (for the
checksum of a COPY, for the diff ID of its layer) looks a file's inode number up before opening it. The number
of a file that is gone is soon another file's. So a Written may tell only of files that are there, and that
nobody else changes:

    - one is for the context of a build, one above it for each step, and goes with the step;
    - where files of it may go, it forgets them all: when one is replaced, when `.dockerignore` drops some,
      when the last COPY has taken them into a layer that may turn out to be here already.

A file that cannot be told whole (attributes, holes) is not noted.

Contents are kept of small files, within a limit for all of them together: opening a file takes longer than
reading a small one, and of large ones the system keeps what it has memory for.
"""

import os
from typing import NamedTuple

from dockmagic_runtime.storage import tar

SMALL = 64 << 10
"""Bytes of the largest file whose content is kept."""
_ROOM = 64 << 20


class File(NamedTuple):
    """A regular file: what its inode says, the SHA-256 of its content, and the content where it is kept."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    digest: bytes
    content: bytes | None

    def entry(self, name: bytes) -> tar.Entry:
        return tar.Entry(name, tar.REGULAR, self.mode, self.uid, self.gid, self.size, self.mtime_ns)


class Written:
    """Files by inode number, all of one file system. Safe to use from several threads."""

    def __init__(self, below: "Written | None" = None, *, room: int = _ROOM) -> None:
        """`below` is asked for what this has not. `room`: bytes of all contents that are kept."""
        self._files: dict[int, File] = {}
        self._below = below
        self._room = room

    def get(self, inode: int) -> File | None:
        """The file of an inode number; None if it has to be read."""
        return self._files.get(inode) or (self._below.get(inode) if self._below else None)

    def note(self, fd: int, digest: bytes, content: bytes | None) -> None:
        """The open file is as it will stay."""
        status = os.fstat(fd)
        if content:
            self._room -= len(content)
            if self._room < 0:
                content = None
        mode, size, mtime_ns = status.st_mode & 0o7777, status.st_size, status.st_mtime_ns
        self._files[status.st_ino] = File(mode, status.st_uid, status.st_gid, size, mtime_ns, digest, content)

    def forget(self) -> None:
        """Tell of nothing any more: files of it are gone, or soon may be."""
        self._files.clear()
