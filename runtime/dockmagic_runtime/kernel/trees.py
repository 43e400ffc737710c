"""Whole directory trees, as deep as somebody has made them.

A container or an image may hold directories a thousand levels deep, or more: then a function that calls
itself for each level meets Python's limit, a path the kernel's (PATH_MAX), and a descriptor per level the
process's. Here one descriptor goes down and comes back by `..`, which is checked to be where it came from.
"""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class _Level:
    """A directory on the way down: its name, which one it is, and what of it is still to come."""

    name: bytes
    identity: tuple[int, int]
    pending: list[tuple[bytes, bool]]

    @classmethod
    def of(cls, fd: int, name: bytes) -> "_Level":
        with os.scandir(fd) as entries:
            pending = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
        return cls(name, _identity(fd), pending)


def contents_first(top: int) -> Iterator[tuple[int, bytes, bool]]:
    """Everything below the directory `top`, what a directory has before itself, without following a link.

    Each as a descriptor of the directory that it is in, good until the next one; its name there; and whether
    it is a directory. Whoever takes them may remove or change each at once. Raises OSError (ESTALE) if
    directories are moved meanwhile.
    """
    fd = os.open(".", _DIRECTORY, dir_fd=top)
    try:
        way = [_Level.of(fd, b".")]
        while True:
            while way[-1].pending:
                name, is_directory = way[-1].pending.pop()
                if not is_directory:
                    yield fd, name, False
                    continue
                fd = _go(fd, name)
                way.append(_Level.of(fd, name))
            done = way.pop()
            if not way:
                return
            fd = _go(fd, b"..")
            if _identity(fd) != way[-1].identity:
                raise OSError(errno.ESTALE, "a directory was moved while its tree was walked", done.name)
            yield fd, done.name, True
    finally:
        os.close(fd)


def remove_at(directory: int, name: bytes) -> None:
    """Delete a file, or a directory with all that it has, without following any link."""
    try:
        os.unlink(name, dir_fd=directory)
        return
    except IsADirectoryError:
        pass
    top = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        for above, each, is_directory in contents_first(top):
            (os.rmdir if is_directory else os.unlink)(each, dir_fd=above)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=directory)


def remove(path: Path) -> None:
    """`remove_at` of a path, whose own directory is trusted. Raises FileNotFoundError if nothing is there."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_at(directory, os.fsencode(path.name))
    finally:
        os.close(directory)


def sizes(top: Path) -> int:
    """Bytes of the files below a directory that is in use, those with several names once.

    What vanishes meanwhile does not count, nor what lies deeper than a path can say.
    """
    total = 0
    linked: set[tuple[int, int]] = set()
    pending = [str(top)]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if status.st_nlink > 1:
                if (identity := (status.st_dev, status.st_ino)) in linked:
                    continue
                linked.add(identity)
            total += status.st_size
    return total


def _go(fd: int, name: bytes) -> int:
    """Leave `fd` for a directory next to it."""
    there = os.open(name, _DIRECTORY, dir_fd=fd)
    os.close(fd)
    return there


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
