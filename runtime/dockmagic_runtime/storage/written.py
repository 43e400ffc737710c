"""What was just written, so that it need not be read again.

Who makes regular files (an Unpacker) notes each here; who then sums up the tree that they are in (for the
checksum of a COPY, for the diff ID of its layer) looks a file's inode number up before opening it. A number
stands for the file that it was noted of only while that file is there and nobody changes it. So

    - a Written lives as long as one build, and tells of that build's own files only;
    - whatever makes files beside those notes them too: a number that is free again is soon another file's;
    - a file that could not be told whole (attributes, holes) is not told at all.

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

    def __init__(self, room: int = _ROOM) -> None:
        """`room`: bytes of all contents that are kept."""
        self._files: dict[int, File] = {}
        self._room = room
        self.get = self._files.get
        """The file of an inode number; None if it has to be read."""

    def note(self, fd: int, digest: bytes | None, content: bytes | None) -> None:
        """The open file is as it will stay. `digest` None: nothing can be told of it."""
        status = os.fstat(fd)
        inode = status.st_ino
        if digest is None:
            self._files.pop(inode, None)
            return
        if content:
            self._room -= len(content)
            if self._room < 0:
                content = None
        mode, size, mtime_ns = status.st_mode & 0o7777, status.st_size, status.st_mtime_ns
        self._files[inode] = File(mode, status.st_uid, status.st_gid, size, mtime_ns, digest, content)

    def forget(self) -> None:
        """Files were removed: numbers that are free now must not be told of."""
        self._files.clear()
